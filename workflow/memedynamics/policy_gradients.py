"""Which memes and samples the gradients are taken on, and the loop over batches that takes them.

The memes are the same for the base and every run: a choice of val, stratified by label, from those that every policy
answers at every milestone. Each policy's gradients rest on its own samples at that milestone (the base's on the base
samples): on-policy throughout, its pairs included. Only DPO looks back at π0, for the margin.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from peft import PeftModel
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from memedynamics import forcing, gradient_sketches, vlm
from memedynamics.answers import Labels
from memedynamics.config import Adapter
from memedynamics.errors import InputError
from memedynamics.forced_logps import Reader
from memedynamics.gradient_sketches import Sketch
from memedynamics.images import open_image
from memedynamics.keys import MEME
from memedynamics.milestones import label
from memedynamics.objective_gradients import Differentiator, Responded, parts, plain_lora
from memedynamics.objectives import Drawn, coefficients
from memedynamics.per_sample import fresh_adapter
from memedynamics.policies import Choose
from memedynamics.probe_pairs import pairs
from memedynamics.probes import stratified
from memedynamics.prompts import Prompt, user_text

SEED = 0  # of the fresh adapter


def choose_memes(
    data: pl.DataFrame, samples: pl.DataFrame, fractions: Sequence[float], size: int, seed: int, in_domain: str
) -> pl.DataFrame:
    """`size` val memes of `in_domain` (rows of schema `data`), sorted, that `samples` answer at every fraction.

    The same choice for every policy where `seed` is that of the study's sampling: a small stratified choice lies
    within the larger one that own samples are drawn for. Raises InputError when no meme is answered everywhere.
    """
    val = data.filter((pl.col("dataset") == in_domain) & (pl.col("split") == "val"))
    asked = samples.filter(pl.col("fraction").is_in(list(fractions)))
    answered = asked.group_by(MEME).agg(pl.col("fraction").n_unique())
    complete = val.join(answered.filter(pl.col("fraction") == len(set(fractions))), on=MEME, how="semi")
    if complete.is_empty():
        raise InputError(f"samples: no val meme of {in_domain} is answered at every milestone; sample them again")
    name = [seed, *f"{in_domain}-val".encode()]
    chosen = stratified(val, size, name)
    if len(chosen.join(complete, on=MEME, how="anti")):
        chosen = stratified(complete, size, name)
    return chosen.sort(MEME)


def fresh(reference: PreTrainedModel, adapter: Adapter) -> Choose:
    """π0 with the study's adapter at its start, the same whenever it is made: B = 0, so only B has a gradient."""
    policy = fresh_adapter(reference, adapter, SEED)
    return lambda name: policy


class Prompted(NamedTuple):
    """One meme with a policy's K samples to it."""

    content: str
    image: Path
    label: int
    rows: pl.DataFrame  # schema samples, in order
    pair: tuple[int, int] | None  # rows of chosen and rejected

    def drawn(self, log_ratio: float) -> Drawn:
        """The samples as numbers; `log_ratio` is the pair's (`objectives.Drawn`)."""
        columns = [self.rows[name].cast(pl.Float64).to_numpy() for name in ("correct", "reward", "logp", "p_hateful")]
        return Drawn(*columns, self.label, self.pair, log_ratio)


def prompted(
    memes: pl.DataFrame, samples: pl.DataFrame, prompt: Prompt, questions: Mapping[str, str]
) -> list[Prompted]:
    """Each of `memes` with its `samples` of one policy, and the pair they make by the rule `paired`."""
    samples = samples.join(memes, on=MEME, how="semi").sort(*MEME, "sample")
    of_meme = samples.partition_by(MEME, as_dict=True, maintain_order=True)
    named = pairs(samples, "paired").select(*MEME, "chosen_sample", "rejected_sample")
    found = []
    for meme in memes.iter_rows(named=True):
        key = tuple(meme[name] for name in MEME)
        row_of = {sample: row for row, sample in enumerate(of_meme[key]["sample"])}
        pair = next((tuple(row_of[s] for s in one[3:]) for one in named.iter_rows() if one[:3] == key), None)
        content = user_text(prompt, questions[meme["dataset"]], meme["text"])
        found.append(Prompted(content, Path(meme["image"]), meme["label"], of_meme[key], pair))
    return found


@dataclass
class Taker:
    """What the milestones of a run share."""

    choose: Choose
    processor: ProcessorMixin
    prompt: Prompt
    beta: float
    group: int
    sketches: dict[str, Sketch] = field(default_factory=dict)  # by part, made when it is first met
    own_start: bool = False  # at fraction 0 too the policy is not the base

    def take(
        self, memes: pl.DataFrame, asked: Sequence[Prompted], batches: Iterable[Sequence[int]], fraction: float
    ) -> pl.DataFrame:
        """Rows of schema `extract_gradients` of the policy at `fraction`.

        `asked`: its samples to each of `memes`; `batches` of their indices.
        """
        policy = self.choose(label(fraction))
        if reason := plain_lora(policy):
            return gradient_sketches.without(memes, fraction, reason)
        correct = np.array([one.rows["correct"].mean() for one in asked])
        baselines = (correct.sum() - correct) / max(1, len(correct) - 1)
        kept: dict[str, Tensor] = {}
        for batch in map(list, batches):
            given = self._responded([asked[i] for i in batch], baselines[batch], fraction)
            policy = self.choose(label(fraction))  # the pairs' log-ratios were taken on π0
            differentiator = Differentiator(policy, self.processor, self.prompt, self.sketches)
            for part, found in differentiator.gradients(given).items():
                kept.setdefault(part, torch.zeros(len(memes), *found.shape[1:]))[batch] = found.cpu()
        groups = gradient_sketches.groups_of(memes["text"])
        products = gradient_sketches.inner_products(kept, groups)
        placed = memes.with_columns(p=pl.Series(correct))
        return gradient_sketches.frame(products, placed, groups, fraction, count_parameters(policy, kept))

    def _responded(self, asked: Sequence[Prompted], baselines: np.ndarray, fraction: float) -> list[Responded]:
        images = [open_image(one.image) for one in asked]
        moved = fraction or self.own_start
        ratios = self._log_ratios(asked, images) if moved else [0.0] * len(asked)
        return [
            Responded(
                one.content,
                image,
                one.rows["token_ids"].to_list(),
                coefficients(one.drawn(ratio), baseline, self.beta, self.group),
            )
            for one, image, baseline, ratio in zip(asked, images, baselines, ratios, strict=True)
        ]

    def _log_ratios(self, asked: Sequence[Prompted], images: Sequence[Image.Image]) -> list[float]:
        """log π/π0 of each pair's chosen minus that of its rejected; 0 where there is no pair."""
        model, tokenizer = self.choose(None), self.processor.tokenizer
        ends, labels = vlm.end_token_ids(model, self.processor), Labels(tokenizer, self.prompt)
        paired = [(n, row) for n, one in enumerate(asked) for row in one.pair or ()]
        if not paired:
            return [0.0] * len(asked)
        tokens = [asked[n].rows["token_ids"][row].to_list() for n, row in paired]
        texts = [forcing.read(n, ids, tokenizer, self.prompt, ends) for (n, _), ids in zip(paired, tokens, strict=True)]
        stored = [asked[n].rows["logp"][row] for n, row in paired]
        reader = Reader(self.processor, labels, [one.content for one in asked], list(images), texts, stored)
        moved = [logp - ref.double().sum().item() for logp, ref in zip(stored, reader.shared(model), strict=True)]
        found = [0.0] * len(asked)
        for place, (n, _) in enumerate(paired):
            found[n] += moved[place] * (1 if place % 2 == 0 else -1)
        return found


def count_parameters(policy: PeftModel, kept: Mapping[str, Tensor]) -> int:
    """Parameters of the factors of `kept` (sketches by part) that have any gradient."""
    layers = parts(policy)
    return sum(layers[part].weight.numel() for part, sketches in kept.items() if sketches.any())
