"""How a policy answers a prompt whose picture is clean or perturbed: P(Yes) and P(No) after one of three texts.

1. `header`: the forced answer header alone. A policy that was taught to reason first has little of its mass there.
2. `rationale`: the base's sample 0, the same text for all policies. It was written on the clean picture and says what
   it saw, so the text decides.
3. `redrawn`: the policy's own greedy response to the very picture, up to its answer; the forced header where it gives
   none. This is what the policy does under noise; equal tokens on both pictures give equal decisions.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from memedynamics import answers
from memedynamics.answers import Decision, Labels
from memedynamics.decoding import respond
from memedynamics.prefix import Prefix
from memedynamics.prompts import Prompt


@dataclass(frozen=True)
class Decider:
    """What all decisions of a job share."""

    tokenizer: PreTrainedTokenizerBase
    prompt: Prompt
    labels: Labels
    ends: Collection[int]  # tokens that end a response
    length: int  # tokens of a response at most

    def given(self, model: PreTrainedModel, past: Prefix, rationales: Sequence[Sequence[int]]) -> dict[str, Decision]:
        """The decisions after texts that are fixed; `rationales`: tokens up to the answer, one text a prompt."""
        contexts = {"header": [self._read([])] * len(rationales), "rationale": rationales}
        return {after: answers.decide(model, past, tokens, self.labels) for after, tokens in contexts.items()}

    @torch.inference_mode()
    def redrawn(self, model: PreTrainedModel, past: Prefix) -> dict[str, Decision]:
        """The decisions at the policy's own greedy responses behind the prompts `past`."""
        # Greedy decoding takes no random numbers: only their shape is read.
        noise = np.zeros((len(past.rows), self.length))
        responses = respond(model, past, noise, self.ends, temperature=0)
        contexts = [self._read(response.token_ids) for response in responses]
        return {"redrawn": answers.decide(model, past, contexts, self.labels)}

    def _read(self, token_ids: Sequence[int]) -> list[int]:
        return answers.context(token_ids, self.tokenizer, self.prompt, self.ends).tokens
