"""Which probes make a prompt's pair. Apart from `probes`, which sampling imports: pairs change no sample."""

import polars as pl

from memedynamics.keys import MEME
from memedynamics.preferences import Rule, outcomes


def pairs(samples: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """MEME, chosen_sample, rejected_sample and pair_type of every prompt whose base samples give a pair by `rule`.

    `samples`: table `probes`, of which the base samples count, or `samples` of the base.
    """
    if "probe_kind" in samples.columns:
        samples = samples.filter(pl.col("probe_kind") == "base_sample")
    if samples.is_empty():
        return samples.select(*MEME, chosen_sample="sample", rejected_sample="sample", pair_type=pl.lit(""))
    # Pairing groups by (dataset, id); an id may occur in two splits.
    splits = [
        outcomes(rows.with_columns(text=pl.lit("")), rule).with_columns(split=pl.lit(split))
        for (split,), rows in sorted(samples.group_by("split"))
    ]
    found = pl.concat(splits).filter(pl.col("outcome") == "paired")
    return found.select(*MEME, "chosen_sample", "rejected_sample", "pair_type")
