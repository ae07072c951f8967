"""Policies against their reference on fixed texts: all of `traces` and `responses` in one pass over a batch.

Pictures, prompts and the reference are computed once a batch, then each milestone in turn; only the last-layer states
that predict something are kept. Logits are formed for a chunk of response positions at a time: the reference's once,
each milestone's against it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin

from memedynamics import answers, score_tables, vlm
from memedynamics.answers import Labels
from memedynamics.batching import halving
from memedynamics.divergences import Divergences, compare, distribution
from memedynamics.forcing import States, Text, plain, read, shared
from memedynamics.images import open_image
from memedynamics.milestones import label
from memedynamics.prompts import Prompt, user_text
from memedynamics.score_tables import Layout, Measured

# A block of logits larger than this leaves a CPU's caches, and every pass over it then waits for memory.
CACHED_LOGITS = 2**20

COLUMNS = Divergences._fields
Head = Callable[[Tensor], Tensor]  # states (…, d) to float32 logits (…, V)


class Side(NamedTuple):
    """One model on a batch: its states, and its way from states to logits."""

    states: States
    head: Head


class Meme(NamedTuple):
    """One prompt with the rows (score_tables.KEYS, token_ids, chosen_sample, rejected_sample) to score."""

    content: str
    image: Image.Image
    rows: pl.DataFrame


def meme(
    rows: pl.DataFrame, sources: Mapping[tuple[str, ...], tuple[str, str]], prompt: Prompt, questions: Mapping[str, str]
) -> Meme:
    """The prompt that `rows` answer; `sources`: (image, text) by (dataset, split, id)."""
    key = rows.select(score_tables.MEME).row(0)
    image, text = sources[key]
    return Meme(user_text(prompt, questions[key[0]], text), open_image(Path(image)), rows)


@dataclass(frozen=True)
class Scorer:
    """What the batches of a run share."""

    model: Callable[[str | None], PreTrainedModel]  # π at a milestone's label or, for None, π0; ready to be called
    processor: ProcessorMixin
    prompt: Prompt
    labels: Labels
    chunk: int  # response positions whose logits are held at once
    plainly: bool = False  # π through whole sequences, nothing shared: the code path that the noise floor compares

    def score(self, memes: Sequence[Meme], fractions: Sequence[float]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """(traces, responses) of the memes' rows at `fractions`, ordered by fraction, row, position.

        Where memory runs out, half the memes at a time.
        """
        found = halving(lambda some: [self._score(some, fractions)], memes)
        # The halves joined in the order of the whole: the sort keeps rows of one fraction as they are.
        traces, responses = (
            pl.concat(frames).sort("fraction", maintain_order=True) for frames in zip(*found, strict=True)
        )
        return traces, responses

    def _score(self, memes: Sequence[Meme], fractions: Sequence[float]) -> tuple[pl.DataFrame, pl.DataFrame]:
        layout, texts = self._layout(memes)
        measured = self.measure(memes, texts, [label(fraction) for fraction in fractions])
        return score_tables.traces(layout, measured, fractions), score_tables.responses(layout, measured, fractions)

    @torch.inference_mode()
    def measure(self, memes: Sequence[Meme], texts: Sequence[Text], labels: Sequence[str]) -> list[Measured]:
        """What each milestone of `labels` does on `texts`, against π0."""
        contents, images = [meme.content for meme in memes], [meme.image for meme in memes]
        inputs = vlm.encode(self.processor, contents, images)
        seen: set[PreTrainedModel] = set()
        sides = []
        with ExitStack() as pictures:
            for name in (None, *labels):
                model = self.model(name)
                if model not in seen:
                    pictures.enter_context(vlm.remembered_pictures(model))
                    inputs = inputs.to(model.device, model.dtype)
                    seen.add(model)
                if self.plainly and name is not None:
                    states = plain(model, self.processor, contents, images, texts, self.labels)
                else:
                    states = shared(model, inputs, texts, self.labels)
                sides.append(Side(states, self._head(model, name)))
        return self._against(*sides, texts=texts)

    def _against(self, reference: Side, *policies: Side, texts: Sequence[Text]) -> list[Measured]:
        states = reference.states.response
        targets = torch.tensor([token for text in texts for token in text.tokens], device=states.device)
        # One block for all results: small ones, each made between large blocks of logits, would splinter the memory.
        found = torch.empty(len(policies), len(COLUMNS), len(targets), device=states.device)
        for part in self._parts(len(targets), reference):
            base = distribution(reference.head(states[part]))
            for columns, policy in zip(found, policies, strict=True):
                columns[:, part] = torch.stack(compare(policy.head(policy.states.response[part]), base, targets[part]))
        ref_p, _ = self._decide(reference)
        named = [dict(zip(COLUMNS, columns, strict=True)) for columns in found.cpu().numpy()]
        return [
            Measured(columns, *self._decide(policy), ref_p, _sums(policy.states.response, texts))
            for columns, policy in zip(named, policies, strict=True)
        ]

    def _decide(self, side: Side) -> tuple[np.ndarray, np.ndarray]:
        found = answers.decision(side.head(side.states.decision), self.labels, side.states.remainder)
        return found.p_hateful.cpu().numpy(), found.label_mass.cpu().numpy()

    def _layout(self, memes: Sequence[Meme]) -> tuple[Layout, list[Text]]:
        # Equal responses to one prompt are scored once: short formats repeat themselves.
        index: dict[tuple[int, tuple[int, ...]], int] = {}
        named = [(n, tuple(ids)) for n, meme in enumerate(memes) for ids in meme.rows["token_ids"].to_list()]
        of_row = np.array([index.setdefault(key, len(index)) for key in named])
        texts = [read(n, ids, self.processor.tokenizer, self.prompt, self._ends) for n, ids in index]
        layout = Layout(
            rows=pl.concat([meme.rows for meme in memes]),
            of_row=of_row,
            lengths=np.array([len(text.tokens) for text in texts]),
            token_id=np.array([token for text in texts for token in text.tokens]),
            span=np.array([span for text in texts for span in text.spans]),
            forced=np.array([text.forced for text in texts]),
        )
        return layout, texts

    @cached_property
    def _ends(self) -> set[int]:
        return vlm.end_token_ids(self.model(None), self.processor)

    def _head(self, model: PreTrainedModel, name: str | None) -> Head:
        if type(vlm.bare(model).lm_head) is nn.Linear:
            return partial(vlm.project, model)
        # The head itself is adapted: the milestone must be switched on whenever it is used.
        return lambda hidden: vlm.project(self.model(name), hidden)

    def _parts(self, positions: int, side: Side) -> Iterator[slice]:
        size = self.chunk
        if side.states.response.device.type == "cpu":
            size = min(size, max(1, CACHED_LOGITS // side.head(side.states.response[:1]).shape[-1]))
        return (slice(start, start + size) for start in range(0, positions, size))


def _sums(states: Tensor, texts: Sequence[Text]) -> np.ndarray:
    owners = torch.repeat_interleave(torch.tensor([len(text.tokens) for text in texts])).to(states.device)
    sums = torch.zeros(len(texts), states.shape[1], device=states.device)
    return sums.index_add_(0, owners, states.float()).cpu().numpy()
