"""What each feature contributes to a policy's decision, meme by meme, and how consistent its gradients are.

1. φ of a feature group: the sum over its tokens (`feature_groups`) of gradient × input toward the gold label
   (`decision_gradients`). One row a meme and group; that of the group `all` also holds the sketch of the gradient of
   the gold answer's NLL with respect to the adapter's factors B.
2. The rationale is fixed: base sample 0 of the meme for every policy, so that policies differ by what they make of the
   same text. Milestones differ from the base in nothing else.
3. Occlusion is the check, since φ is a first-order reading: of the first half of a split's memes, at the last
   fraction, with each whole group's embeddings replaced by the vocabulary's mean.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from memedynamics import feature_groups, forcing, segments, vlm
from memedynamics.answers import Labels
from memedynamics.batching import halving
from memedynamics.decision_gradients import (
    Answered,
    FirstTokens,
    Question,
    answer,
    first_tokens,
    mean_embedding,
    occluded,
)  # fmt: skip
from memedynamics.forcing import Text
from memedynamics.images import open_image
from memedynamics.milestones import label
from memedynamics.moments import Gradients, States, join, strength, without_each
from memedynamics.probed_memes import Meme
from memedynamics.prompts import Prompt


class Layout(NamedTuple):
    """A batch, encoded once for all policies."""

    question: Question
    groups: list[dict[str, np.ndarray]]  # of each meme, positions in the sequence


@dataclass(frozen=True)
class Extractor:
    """What the batches of a run share."""

    model: Callable[[str | None], PreTrainedModel]  # the policy at a milestone's label
    processor: ProcessorMixin
    prompt: Prompt

    def split(
        self, batches: Iterable[Sequence[Meme]], fractions: Sequence[float], checked: int, signal: bool
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows of `extract_sharpe` of a split's `batches` at `fractions`, and, where `signal`, of `extract_signal`.

        The first `checked` batches are occluded. Policies without LoRA's factors have no rows of signal.
        """
        rows, states = [], {}
        for place, batch in enumerate(batches):
            found, new = self.extract(batch, fractions, place < checked, signal)
            rows.append(found)
            join(states, new)
        return pl.concat(rows), _signal(states)

    def extract(
        self, memes: Sequence[Meme], fractions: Sequence[float], checked: bool, signal: bool
    ) -> tuple[pl.DataFrame, States]:
        """Rows of `extract_sharpe` of the memes at `fractions`, and the gradients' moments where `signal`.

        `checked`: occlude at the last fraction. Where memory runs out, half the memes at a time.
        """
        found = halving(lambda some: [self._extract(some, fractions, checked, signal)], memes)
        states: States = {}
        for _, new in found:
            join(states, new)
        return pl.concat([rows for rows, _ in found]), states

    def _extract(
        self, memes: Sequence[Meme], fractions: Sequence[float], checked: bool, signal: bool
    ) -> tuple[pl.DataFrame, States]:
        # Before a policy is chosen: these are asked of the base, and only one of both is switched on.
        layout, mean = self._layout(memes), self._mean
        states, rows = {}, []
        with ExitStack() as pictures:
            seen: set[PreTrainedModel] = set()
            for fraction in fractions:
                model = self.model(label(fraction))
                if model not in seen:
                    pictures.enter_context(vlm.remembered_pictures(model))
                    seen.add(model)
                question = _moved(layout.question, model)
                gradients = Gradients([meme.group for meme in memes])
                answered = answer(model, question, self._first_tokens, gradients if signal else None)
                effects = self._occlude(model, question, layout, mean) if checked and fraction == fractions[-1] else {}
                states[fraction] = gradients.moments
                found = _rows(memes, layout, answered, effects, gradients.sketches)
                rows.append(found.with_columns(fraction=pl.lit(fraction, pl.Float64)))
        return pl.concat(rows), states

    def _occlude(self, model: PreTrainedModel, question: Question, layout: Layout, mean: Tensor) -> dict[str, Tensor]:
        masks = {}
        for name in feature_groups.WHOLE:
            mask = torch.zeros(question.inputs["attention_mask"].shape, dtype=torch.bool)
            for row, groups in enumerate(layout.groups):
                mask[row, groups.get(name, [])] = True
            masks[name] = mask.to(model.device)
        effects = occluded(model, question, self._first_tokens, list(masks.values()), mean)
        return dict(zip(masks, effects.cpu().double(), strict=True))

    def _layout(self, memes: Sequence[Meme]) -> Layout:
        contents = ["".join(part.text for part in meme.message) for meme in memes]
        images = [open_image(meme.image) for meme in memes]
        tokenizer = self.processor.tokenizer
        texts = [forcing.read(n, m.tokens, tokenizer, self.prompt, self._ends) for n, m in enumerate(memes)]
        fed = [text.fed[: text.decision] for text in texts]
        inputs = forcing.sequences(self.processor, contents, images, fed)
        width = inputs["input_ids"].shape[1] - max(1, *map(len, fed))
        at = torch.tensor([width - 1 + text.decision for text in texts])
        hateful = torch.tensor([meme.row["label"] == 1 for meme in memes])
        return Layout(Question(inputs, at, hateful), self._groups(memes, inputs, width, texts))

    def _groups(
        self, memes: Sequence[Meme], inputs: Mapping[str, Tensor], width: int, texts: Sequence[Text]
    ) -> list[dict[str, np.ndarray]]:
        prompts = {name: inputs[name][:, :width] for name in ("input_ids", "attention_mask")}
        grids = {name: inputs[name] for name in ("image_grid_thw",) if name in inputs}
        placed = segments.place(prompts | grids, self.processor, [meme.message for meme in memes])
        rows = zip(placed.segment, placed.cell, prompts["input_ids"].numpy(), texts, strict=True)
        return [feature_groups.groups(*row, self.processor.tokenizer) for row in rows]

    @cached_property
    def _first_tokens(self) -> FirstTokens:
        return first_tokens(Labels(self.processor.tokenizer, self.prompt))

    @cached_property
    def _ends(self) -> set[int]:
        return vlm.end_token_ids(self.model(None), self.processor)

    @cached_property
    def _mean(self) -> Tensor:
        return mean_embedding(self.model(None))


def _moved(question: Question, model: PreTrainedModel) -> Question:
    inputs = question.inputs.to(model.device, model.dtype)
    return Question(inputs, question.at.to(model.device), question.hateful.to(model.device))


def _rows(
    memes: Sequence[Meme], layout: Layout, answered: Answered, effects: Mapping[str, Tensor], sketches: Tensor | None
) -> pl.DataFrame:
    """One row a meme and group; `effects` (B,) by group."""
    phi, log_odds = answered.phi.double().cpu().numpy(), answered.log_odds.double().cpu().tolist()
    rows = []
    for n, (meme, groups) in enumerate(zip(memes, layout.groups, strict=True)):
        for name, positions in groups.items():
            row = {**meme.row, "group": name, "phi": phi[n, positions].sum(), "log_odds": log_odds[n]}
            row["occlusion"] = effects[name][n].item() if name in effects else None
            row["gradient"] = sketches[n].tolist() if sketches is not None and name == feature_groups.ALL else None
            rows.append(row)
    schema = {"occlusion": pl.Float64, "gradient": pl.List(pl.Float32)}
    return pl.DataFrame(rows, schema_overrides=schema)


def _signal(states: States) -> pl.DataFrame:
    rows = []
    for fraction, layers in states.items():
        for (name, group), found in layers.items():
            if group is None:
                left = without_each(layers, name)
                row = {"fraction": fraction, "module": name, "n": found.n, **strength(found)._asdict()}
                row["snr_without"] = [one.mean_sq / one.var for one in left] or None
                rows.append(row | {"gsnr_without": [one.ratio for one in left] or None})
    schema = {"fraction": pl.Float64, "module": pl.String, "n": pl.Int64, "parameters": pl.Int64, "varying": pl.Int64}
    schema |= dict.fromkeys(("snr_without", "gsnr_without"), pl.List(pl.Float64))
    schema |= {name: pl.Float64 for name in ("mean_sq", "var", "ratio")}
    return pl.DataFrame(rows, schema=schema).with_columns(pl.col("ratio").fill_nan(None))
