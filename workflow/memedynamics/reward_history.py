"""What the trainer logged, and whether it agrees with what it drew.

1. `history` rows keep the trainer's own names, one logged value each (n = 1), no interval. TRL's `reward_std` is over
   all completions of a step; its `frac_reward_zero_std` misses groups that differ by rounding alone.
2. `check` is the largest absolute difference of a logged step between history and rollouts, by metric; it is reported,
   never refused.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from memedynamics import gather
from memedynamics.reward_training import RUN

UNITS = {"kl": "nat/token", "entropy": "nat/token", "loss": "1", "reward": "1", "reward_std": "1"}
UNITS |= {"frac_reward_zero_std": "1", "mean_token_accuracy": "1", "completions/clipped_ratio": "1"}
UNITS |= {"completions/mean_length": "token", "rewards/accuracies": "1"}
UNITS |= {f"rewards/{name}": "nat" for name in ("chosen", "rejected", "margins")}


def logged(histories: Sequence[Path]) -> pl.DataFrame:
    """Method, seed, step, metric, value of all runs; runs that logged nothing have no rows."""
    return gather.frames(histories, "history", ["step", "metric", "value"], empty=True)


def rows(history: pl.DataFrame, runs: pl.DataFrame) -> list[dict]:
    """The trainer's own numbers at every logged step."""
    total = runs.filter(pl.col("fraction") == 1).select(*RUN, total="step").drop_nulls()
    unit = pl.col("metric").replace_strict(UNITS, default=None)
    unit = pl.when(pl.col("metric").str.contains("^rewards/.+/mean$")).then(pl.lit("1")).otherwise(unit)
    kept = history.join(total, on=RUN).with_columns(unit=unit).drop_nulls("unit")
    return kept.select(
        *RUN, "unit", "value", statistic="metric", fraction=pl.col("step") / pl.col("total"), n=1,
        over=pl.lit("step"), source=pl.lit("history"),
    ).to_dicts()  # fmt: skip


def check_rows(history: pl.DataFrame, found: pl.DataFrame) -> list[dict]:
    """Largest absolute difference of a logged step between history and the mean over the rollouts it is about.

    A logged value is about all groups drawn since the one before.
    """
    names = {name: name for name in found.columns if name.startswith("rewards/")}
    result = []
    for metric, column in ({"reward": "reward", "frac_reward_zero_std": "zero_share"} | names).items():
        said = history.filter(pl.col("metric") == metric).select(*RUN, "step", "value", logged="step").sort("step")
        about = found.sort("step").join_asof(said, on="step", by=RUN, strategy="forward", check_sortedness=False)
        means = about.drop_nulls(["logged", column]).group_by(*RUN, "logged").agg(
            pl.col(column).mean(), pl.col("value").first()
        )  # fmt: skip
        apart = means.group_by(*RUN, maintain_order=True).agg(
            value=(pl.col(column) - pl.col("value")).abs().max(), n=pl.len()
        )
        fixed = {"fraction": 1.0, "over": "run", "source": "check", "statistic": metric, "unit": "1"}
        result += [{**fixed, **row} for row in apart.to_dicts()]
    return result
