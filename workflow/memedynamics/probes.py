"""Fixed probes: which base samples every policy scores, chosen once a study."""

from collections.abc import Iterable

import numpy as np
import polars as pl

from memedynamics.config import Probes

KEYS = ["dataset", "split", "id"]
COLUMNS = ["probe_kind", *KEYS, "sample", "token_ids", "correct", "format_ok", "reward"]


def build(samples: pl.DataFrame, data: pl.DataFrame, probes: Probes, in_domain: str) -> pl.DataFrame:
    """The base samples of a seeded subset of prompts, stratified by label, with their token ids: schema `probes`.

    `samples` are base samples of any datasets and splits, `data` the rows of those memes. The order of rows does not
    matter.
    """
    rows = samples.join(subset(data, probes, in_domain), KEYS, "semi").sort(*KEYS, "sample")
    return rows.with_columns(probe_kind=pl.lit("base_sample")).select(COLUMNS)


def subset(data: pl.DataFrame, probes: Probes, in_domain: str) -> pl.DataFrame:
    """The memes (KEYS, label) of `data` that are probed.

    Train and val of `in_domain` and every other dataset are each cut to their size in `probes`.
    """
    kept = []
    for (dataset, split), memes in sorted(data.select(*KEYS, "label").group_by("dataset", "split")):
        size = getattr(probes, split) if dataset == in_domain else probes.out_of_domain
        kept.append(stratified(memes, size, [probes.seed, *f"{dataset}/{split}".encode()]))
    return pl.concat(kept)


def stratified(memes: pl.DataFrame, size: int | None, seed: Iterable[int]) -> pl.DataFrame:
    """`size` of `memes` (id, label, …), each label in its share to within one; all where `size` is empty or larger."""
    if size is None or size >= len(memes):
        return memes
    random = np.random.default_rng(list(seed))
    shuffled = memes.sort("id")[random.permutation(len(memes))]
    # Evenly spaced places within each label's own run: the first `size` by place hold each label in its share.
    place = (pl.int_range(pl.len()).over("label") + 0.5) / pl.len().over("label")
    return shuffled.sort(place, "label").head(size)
