"""Decision and forward KL of a model whose weights change, on base samples: what the merge path is measured by.

π0's last-layer states are computed once and kept on the CPU, with its head: the one model in memory is then free to
become any policy. Texts, prompts and divergences are those of scoring.
"""

import copy
import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin

from memedynamics import answers, forcing, vlm
from memedynamics.answers import Labels
from memedynamics.batching import halving
from memedynamics.divergences import compare, distribution
from memedynamics.forcing import States, Text
from memedynamics.keys import MEME
from memedynamics.prompts import Prompt
from memedynamics.scoring import CACHED_LOGITS, Meme


class Known(NamedTuple):
    """A meme, its distinct responses, which of them each row of its samples is, and what π0 makes of them."""

    meme: Meme
    texts: list[Text]
    of_row: list[int]
    reference: Tensor  # (P, d) on the CPU: π0's states that predict the texts' tokens, text after text


class _Head(nn.Module):
    """A head without its model, as `vlm.project` takes it."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.lm_head = copy.deepcopy(head)


class PathScorer:
    """Made while `model` is still π0; `score` then measures whatever its weights are."""

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, prompt: Prompt, chunk: int) -> None:
        self.model, self.processor, self.prompt = model, processor, prompt
        self.labels, self.head = Labels(processor.tokenizer, prompt), _Head(vlm.bare(model).lm_head)
        self.ends = vlm.end_token_ids(model, processor)
        vocabulary = vlm.bare(model).get_output_embeddings().weight.shape[0]
        # A block of logits larger than this leaves a CPU's caches.
        self.chunk = chunk if model.device.type == "cuda" else min(chunk, max(1, CACHED_LOGITS // vocabulary))

    def know(self, memes: Sequence[Meme]) -> list[Known]:
        """The memes with π0's states: call it before the weights change. Halved where memory runs out."""
        return halving(self._know, memes)

    def score(self, memes: Sequence[Known]) -> pl.DataFrame:
        """MEME, sample, p_hateful, forced and kl_forward (nat, summed over the response) of every sample."""
        return pl.concat(halving(self._score, memes))

    def _know(self, memes: Sequence[Meme]) -> list[Known]:
        read = [self._texts(meme) for meme in memes]
        states = self._states(memes, [texts for texts, _ in read]).response
        parts = states.cpu().split([sum(len(text.tokens) for text in texts) for texts, _ in read])
        return [Known(meme, *some, part) for meme, some, part in zip(memes, read, parts, strict=True)]

    def _texts(self, meme: Meme) -> tuple[list[Text], list[int]]:
        # Equal responses are scored once.
        index: dict[tuple[int, ...], int] = {}
        of_row = [index.setdefault(tuple(tokens), len(index)) for tokens in meme.rows["token_ids"].to_list()]
        read = partial(forcing.read, tokenizer=self.processor.tokenizer, prompt=self.prompt, ends=self.ends)
        return [read(0, tokens) for tokens in index], of_row

    def _states(self, memes: Sequence[Meme], texts: Sequence[Sequence[Text]]) -> States:
        inputs = vlm.encode(self.processor, [meme.content for meme in memes], [meme.image for meme in memes])
        placed = [dataclasses.replace(text, prompt=place) for place, some in enumerate(texts) for text in some]
        return forcing.shared(self.model, inputs.to(self.model.device, self.model.dtype), placed, self.labels)

    @torch.inference_mode()
    def _score(self, memes: Sequence[Known]) -> list[pl.DataFrame]:
        states = self._states([known.meme for known in memes], [known.texts for known in memes])
        texts = [text for known in memes for text in known.texts]
        targets = torch.tensor([token for text in texts for token in text.tokens], device=self.model.device)
        moved = self._kl(states.response, torch.cat([known.reference for known in memes]), targets)
        sums = [float(part.sum()) for part in moved.split([len(text.tokens) for text in texts])]
        decided = answers.decision(vlm.project(self.model, states.decision), self.labels, states.remainder)
        measured = zip(decided.p_hateful.tolist(), sums, texts, strict=True)
        return [_rows(known, [next(measured) for _ in known.texts]) for known in memes]

    def _kl(self, states: Tensor, reference: Tensor, targets: Tensor) -> Tensor:
        found = []
        for part in (slice(start, start + self.chunk) for start in range(0, len(targets), self.chunk)):
            base = distribution(vlm.project(self.head, reference[part].to(states.device)))
            found.append(compare(vlm.project(self.model, states[part]), base, targets[part]).kl_forward.double())
        return torch.cat(found)


def _rows(known: Known, measured: Sequence[tuple[float, float, Text]]) -> pl.DataFrame:
    chosen = [measured[place] for place in known.of_row]
    return known.meme.rows.select(*MEME, "sample").with_columns(
        p_hateful=pl.Series([p for p, _, _ in chosen], dtype=pl.Float64),
        forced=pl.Series([text.forced for *_, text in chosen], dtype=pl.Boolean),
        kl_forward=pl.Series([kl for _, kl, _ in chosen], dtype=pl.Float64),
    )
