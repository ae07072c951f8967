"""What a policy gained for how far it moved: accuracy per nat of KL, bootstrapped as one ratio.

gain per nat = (accuracy(π) − accuracy(π0)) / KL(π0‖π), mean over val prompts that have both: the policy's own answers
and the base's, and the forward KL per response on the base's samples. Prompts are resampled once for numerator and
denominator. Blank where the KL's interval does not clear the noise floor (`floors`): the ratio would be of noise.
"""

import polars as pl

from memedynamics import curves
from memedynamics.errors import InputError
from memedynamics.gather import BASE, CURVE, MEME
from memedynamics.stats import ratio

COLUMNS = ["present", "gain", "kl"]
STATISTICS: curves.Statistics = {
    "gain_per_nat": ("1/nat", lambda sums: ratio(sums["gain"], sums["kl"])),
    "kl": ("nat", lambda sums: ratio(sums["kl"], sums["present"])),
}
UNDER_FLOOR = "the KL does not clear the noise floor"


def per_prompt(samples: pl.DataFrame, responses: pl.DataFrame) -> pl.DataFrame:
    """COLUMNS by CURVE and MEME at the end of training on val.

    `samples`: method, seed, fraction, MEME, correct, of the base and of every policy; `responses`: schema `responses`
    with method and seed.
    """
    keys = ["method", "seed", *MEME]
    val = samples.filter(pl.col("split") == "val")
    accuracy = val.group_by(*keys, "fraction").agg(pl.col("correct").cast(pl.Float64).mean())
    base = accuracy.filter(pl.col("method") == BASE).select(*MEME, before="correct")
    moved = responses.filter((pl.col("probe_kind") == "base_sample") & (pl.col("method") != BASE))
    kl = moved.group_by(*keys, "fraction").agg(kl=pl.col("kl_forward").mean())
    joined = accuracy.join(base, on=MEME).join(kl, on=[*keys, "fraction"], nulls_equal=True)
    last = joined.filter(pl.col("fraction") == pl.col("fraction").max().over("method", "seed"))
    gained = {"gain": pl.col("correct") - pl.col("before"), "present": pl.lit(1.0), "probe_kind": pl.lit("own_sample")}
    return last.with_columns(**gained).select(*CURVE, *MEME, *COLUMNS)


def floors(kl: pl.DataFrame) -> pl.DataFrame:
    """method, seed, floor: the KL (nat per response, val) that counts as none, from the analysis `kl`.

    The larger of π0 against itself through the other code path, and this run against the method's other seeds.
    Raises InputError where the table has no other code path.
    """
    whole = kl.filter(pl.col("statistic") == "per_response", pl.col("span") == "all", pl.col("split") == "val")
    path = whole.filter(pl.col("versus") == "other_path", pl.col("estimator") == "exact")["ci_high"].max()
    if path is None:
        raise InputError("analyses/kl.parquet: no row of the base through the other code path; delete it and run again")
    seeds = whole.filter(pl.col("direction") == "between_seeds", pl.col("fraction") == pl.col("fraction").max())
    between = seeds.group_by("method", "seed").agg(between=pl.col("value").max())
    runs = whole.filter(pl.col("method") != BASE).select("method", "seed").unique()
    joined = runs.join(between, on=["method", "seed"], how="left")
    return joined.select("method", "seed", floor=pl.max_horizontal("between", pl.lit(path)))


def rows(
    samples: pl.DataFrame, responses: pl.DataFrame, prompts: pl.DataFrame, floor: pl.DataFrame, resamples: int
) -> list[dict]:
    """One row a run: statistic gain_per_nat; `floor` from `floors`."""
    found = curves.levels(per_prompt(samples, responses), prompts, COLUMNS, STATISTICS, resamples)
    low = {(row["method"], row["seed"]): row["ci_low"] for row in found if row["statistic"] == "kl"}
    least = {(method, seed): value for method, seed, value in floor.select("method", "seed", "floor").rows()}
    blank = {run for run, value in low.items() if value <= least[run]}
    return [
        _blank(row) if (row["method"], row["seed"]) in blank else {**row, "missing": None}
        for row in found
        if row["statistic"] == "gain_per_nat"
    ]


def _blank(row: dict) -> dict:
    return {**row, "value": None, "ci_low": None, "ci_high": None, "missing": UNDER_FLOOR}
