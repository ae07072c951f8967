"""The memes whose decision is taken apart, each with the one response that every policy is read with."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from memedynamics import segments
from memedynamics.batching import cut
from memedynamics.captions import clusters
from memedynamics.errors import InputError
from memedynamics.keys import MEME
from memedynamics.moments import GROUPS
from memedynamics.probes import stratified
from memedynamics.prompts import Prompt

CHECKED = 0.5  # share of a split's batches that are occluded


class Meme(NamedTuple):
    """One meme and the response it is read with."""

    row: dict  # dataset, split, id, label
    message: list[segments.Part]
    image: Path
    tokens: list[int]
    group: int = 0  # of the jackknife over memes


class Share(NamedTuple):
    """A split's memes at some milestones: what a job finishes or does anew."""

    key: str
    fractions: list[float]
    dataset: str
    split: str
    batches: list[Sequence[Meme]]
    checked: int  # the first so many batches are occluded at the last milestone


def shares(
    memes: Mapping[tuple[str, str], Sequence[Meme]], fractions: Sequence[float], one_at_a_time: bool, batch_size: int
) -> list[Share]:
    """All of a job; `one_at_a_time` takes a milestone after the other, for policies that are loaded whole."""
    found = []
    for group in [[fraction] for fraction in fractions] if one_at_a_time else [list(fractions)]:
        for (dataset, split), some in memes.items():
            batches = cut(some, batch_size)
            checked = math.ceil(CHECKED * len(batches)) if group[-1] == fractions[-1] else 0
            found.append(Share(f"{len(found):03d}", group, dataset, split, batches, checked))
    return found


def chosen(
    probes: pl.DataFrame, data: pl.DataFrame, memes: int, prompt: Prompt, questions: Mapping[str, str]
) -> dict[tuple[str, str], list[Meme]]:
    """By dataset and split, `memes` of those that `probes` hold, stratified by label: every policy's are the same.

    Raises InputError where `data` lacks a probed meme.
    """
    fixed = probes.filter((pl.col("probe_kind") == "base_sample") & (pl.col("sample") == 0))
    rows = fixed.select(*MEME, "token_ids").join(data.select(*MEME, "label", "image", "text"), on=MEME, how="left")
    if lost := rows.filter(pl.col("label").is_null()).select(MEME).rows():
        raise InputError(f"data: no row for {len(lost)} probed memes ({'/'.join(lost[0])} is the first); prepare anew")
    found = {}
    for (dataset, split), part in sorted(rows.group_by("dataset", "split")):
        some = stratified(part.sort("id"), memes, [*f"{dataset}/{split}".encode()])
        groups = clusters(some["text"].to_list()) % GROUPS  # equal captions in one
        found[dataset, split] = [
            _meme(row, prompt, questions, int(group)) for row, group in zip(some.to_dicts(), groups, strict=True)
        ]
    return found


def _meme(row: dict, prompt: Prompt, questions: Mapping[str, str], group: int) -> Meme:
    message = segments.parts(prompt, questions[row["dataset"]], row["text"])
    key = {name: row[name] for name in (*MEME, "label")}
    return Meme(key, message, Path(row["image"]), row["token_ids"], group)
