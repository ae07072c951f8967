"""Teacher forcing of many responses: the states that predict each token, and the answer.

A response is fed without its end token, since the state before it already predicts it; one without an answer block is
fed the forced header behind. So one pass serves both the response's positions and the decision.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from memedynamics import answers, prefix, vlm
from memedynamics.answers import Labels, padded
from memedynamics.prompts import Prompt

# Rows fed together: enough to fill the device, few enough that a long response pads few short ones.
ROWS = {"cpu": 16, "cuda": 128}


@dataclass(frozen=True)
class Text:
    """One response to one prompt of a batch, read once."""

    prompt: int  # index of its prompt in the batch
    tokens: tuple[int, ...]  # the response, its end token included
    spans: tuple[str, ...]  # what each token belongs to
    fed: tuple[int, ...]  # what the model reads
    decision: int  # how many of those before the answer's first token
    forced: bool  # the answer header is not the response's own


class States(NamedTuple):
    """Last-layer states, packed: texts follow each other, no row is padding."""

    response: Tensor  # (P, d): predict the tokens of all responses
    decision: Tensor  # (N, d): predict each response's first answer token
    remainder: Tensor | None  # (N, S): answers.remainders, where labels have several tokens


def read(
    index: int, tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase, prompt: Prompt, ends: Collection[int]
) -> Text:
    """The response `tokens` to prompt number `index` of a batch."""
    context, forced = answers.context(tokens, tokenizer, prompt, ends)
    own = tokens[:-1] if tokens[-1] in ends else tokens
    return Text(
        prompt=index,
        tokens=tuple(tokens),
        spans=tuple(answers.spans(tokens, tokenizer, prompt, ends)),
        fed=tuple(context if forced else own),
        decision=len(context),
        forced=forced,
    )


@torch.inference_mode()
def shared(model: PreTrainedModel, inputs: Mapping[str, Tensor], texts: Sequence[Text], labels: Labels) -> States:
    """States of `texts` behind the B prompts of `inputs`, each prompt run once for all its responses."""
    past = prefix.prefill(model, inputs)
    found: list[States | None] = [None] * len(texts)
    remainders = _remainders(model, past, texts, labels) if labels.tails else [None] * len(texts)
    for group in _by_length([text.fed for text in texts], past):
        rows = past.select(torch.tensor([texts[n].prompt for n in group]))
        hidden = prefix.extend(model, rows, *padded([texts[n].fed for n in group]))
        for n, last, behind in zip(group, rows.last_hidden, hidden, strict=True):
            found[n] = _pick(texts[n], last, behind, remainders[n])
    return _packed(found)


def _remainders(model: PreTrainedModel, past: prefix.Prefix, texts: Sequence[Text], labels: Labels) -> Tensor:
    # Responses that differ in the answer alone decide in the same place.
    index: dict[tuple[int, tuple[int, ...]], int] = {}
    of_text = [index.setdefault((text.prompt, text.fed[: text.decision]), len(index)) for text in texts]
    found: list[Tensor | None] = [None] * len(index)
    prompts, contexts = zip(*index, strict=True)
    for group in _by_length(contexts, past):
        rows = past.select(torch.tensor([prompts[n] for n in group]))
        reached = prefix.grow(model, rows, *padded([contexts[n] for n in group]))
        for n, remainder in zip(group, answers.remainders(model, reached, labels), strict=True):
            found[n] = remainder
    return torch.stack([found[n] for n in of_text])


def _by_length(sequences: Sequence[Sequence[int]], past: prefix.Prefix) -> Iterator[list[int]]:
    order, size = sorted(range(len(sequences)), key=lambda n: len(sequences[n])), ROWS[past.last_hidden.device.type]
    return (order[start : start + size] for start in range(0, len(order), size))


def _pick(text: Text, last: Tensor, hidden: Tensor, remainder: Tensor | None) -> States:
    """What one text needs of `last` (d,), the state at its prompt's end, and `hidden` (R, d), those behind."""
    response = torch.cat([last[None], hidden[: len(text.tokens) - 1]])
    return States(response, hidden[text.decision - 1] if text.decision else last, remainder)


def _packed(found: Sequence[States]) -> States:
    response, decision, remainder = zip(*found, strict=True)
    whole = None if remainder[0] is None else torch.stack(remainder)
    return States(torch.cat(response), torch.stack(decision), whole)


@torch.inference_mode()
def plain(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    contents: Sequence[str],
    images: Sequence[Image.Image],
    texts: Sequence[Text],
    labels: Labels,
) -> States:
    """The same states the plain way: every response behind a full copy of its prompt and picture, nothing shared."""
    prompts = [text.prompt for text in texts]

    def hidden(fed: list[Sequence[int]]) -> Tensor:
        inputs = sequences(processor, [contents[n] for n in prompts], [images[n] for n in prompts], fed)
        states = vlm.hidden_states(model, **inputs.to(model.device, model.dtype)).last_hidden_state
        return states[:, -1 - max(1, *map(len, fed)) :]

    def remainder(spelling: tuple[int, ...]) -> Tensor:
        states = hidden([(*text.fed[: text.decision], *spelling[:-1]) for text in texts])
        total = torch.zeros(len(texts), dtype=torch.float64, device=states.device)
        for n, text in enumerate(texts):
            logits = vlm.project(model, states[n, text.decision + 1 : text.decision + len(spelling)])
            total[n] = logits.double().log_softmax(-1)[range(len(spelling) - 1), spelling[1:]].sum()
        return total

    states = hidden([text.fed for text in texts])
    remainders = torch.stack([remainder(s) for s in labels.spellings], dim=1) if labels.tails else [None] * len(texts)
    return _packed([_pick(t, h[0], h[1:], r) for t, h, r in zip(texts, states, remainders, strict=True)])


def sequences(
    processor: ProcessorMixin, contents: list[str], images: list[Image.Image], fed: Sequence[Sequence[int]]
) -> BatchFeature:
    """Model inputs of whole sequences: prompts left-padded, the tokens `fed` behind them right-padded."""
    inputs = vlm.encode(processor, contents, images)
    tokens, mask = padded(fed)
    behind = {"input_ids": tokens, "attention_mask": mask}
    shape = inputs["input_ids"].shape
    for name, value in inputs.items():
        if value.shape == shape:  # also token types: a response holds no picture
            inputs[name] = torch.cat([value, behind.get(name, torch.zeros_like(tokens))], dim=1)
    return inputs
