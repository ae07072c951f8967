"""Train minus val of the reward and its parts, of policies that draw completions to train memes while they train.

1. Policies do not answer train memes at their milestones. `_gap` takes the rollouts of a window of steps between two
   milestones (train) against the mean of the own samples at the two (val; the base's for the first window): the policy
   changes within a window, and the milestone at its end alone would be up to a window ahead of the rollouts.
2. `_base_gap` is the base on exactly the same prompts, `_gained_gap` the difference of the two: the gap without what
   the prompts' difficulty makes of it. Prompts that were chosen on these very base samples (paired) hold too many of
   the base's lucky and unlucky draws: between samples and rollouts they regress to their mean.
"""

import polars as pl

from memedynamics import curves
from memedynamics.gather import BASE, CURVE, MEME
from memedynamics.stats import ratio

# What rollouts and samples both have, and the samples' column for it.
PARTS = {"reward": "reward", "rewards/accuracy/mean": "right", "rewards/format/mean": "format_ok"}
NAMES = {"reward": "reward", "right": "accuracy", "format_ok": "format_share"}


def rows(
    answers: pl.DataFrame, groups: pl.DataFrame, prompts: pl.DataFrame, runs: pl.DataFrame, resamples: int
) -> list[dict]:
    """Rollouts on train minus own samples on val, the base's gap on the same prompts, and their difference."""
    shared = [name for name in PARTS if name in groups.columns]
    columns = ["present", *(f"{side}{PARTS[name]}" for side in ("", "base_") for name in shared)]
    both = with_both(_both_sides(answers, groups, runs, shared).select(*CURVE, *MEME, *columns))
    if both.is_empty():
        return []
    memes, who, views = curves.place(both, prompts, columns)
    keys, pairs = sides(memes, who, views, "rollouts")
    statistics = {}
    for column in (PARTS[name] for name in shared):
        statistics |= _gap_statistics(column, NAMES[column])
    estimates = curves.evaluate(views, columns, statistics, *curves.resampling(memes, resamples))
    return curves.difference_rows(keys, views, pairs, estimates, "_gap")


def _gap_statistics(column: str, name: str) -> curves.Statistics:
    return {
        name: ("1", lambda s: ratio(s[column], s["present"])),
        f"{name}_base": ("1", lambda s: ratio(s[f"base_{column}"], s["present"])),
        f"{name}_gained": ("1", lambda s: ratio(s[column] - s[f"base_{column}"], s["present"])),
    }


def _both_sides(answers: pl.DataFrame, groups: pl.DataFrame, runs: pl.DataFrame, shared: list[str]) -> pl.DataFrame:
    """Means by CURVE and MEME of rollouts (train) and own samples (val), with the base's beside them."""
    columns = [PARTS[name] for name in shared]
    base = answers.filter(pl.col("method") == BASE)
    beside = base.select(*MEME, *(pl.col(name).alias(f"base_{name}") for name in columns))
    drawn = groups.drop_nulls("milestone").group_by("method", "seed", "milestone", "id").agg(
        pl.col(name).mean().alias(PARTS[name]) for name in shared
    )  # fmt: skip
    train = drawn.rename({"milestone": "fraction"}).with_columns(
        dataset=pl.lit(base["dataset"].first(), pl.String), split=pl.lit("train")
    )
    val = _between(answers.filter(pl.col("split") == "val"), runs, columns)
    sides = pl.concat([val, train.select(val.columns)]).drop_nulls(columns)
    return sides.join(beside, on=MEME).with_columns(probe_kind=pl.lit("own_sample"), present=1.0)


def _between(answers: pl.DataFrame, runs: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Mean of each prompt's answers at the two milestones that bound a window, under its end's fraction.

    A run without answers of its own at fraction 0 starts at the base.
    """
    policies = runs.filter(pl.col("method") != BASE).sort("method", "seed", "fraction")
    ends = policies.select("method", "seed", "fraction", before=pl.col("fraction").shift(1).over("method", "seed"))
    own = answers.select("method", "seed", "fraction", *MEME, *columns)
    start = own.filter(pl.col("method") == BASE).drop("method", "seed")
    theirs = own.filter(pl.col("method") != BASE)
    begun = policies.filter(pl.col("fraction") == 0).select("method", "seed", "fraction")
    at_base = begun.join(theirs, on=["method", "seed", "fraction"], how="anti")
    seen = pl.concat([theirs, start.join(at_base, on="fraction").select(own.columns)])
    late, early = ends.drop("before"), ends.rename({"fraction": "end", "before": "fraction"}).drop_nulls()
    sides = [
        seen.join(late, on=["method", "seed", "fraction"]),
        seen.join(early, on=["method", "seed", "fraction"]).drop("fraction").rename({"end": "fraction"}),
    ]
    both = pl.concat([side.select(own.columns) for side in sides]).group_by("method", "seed", "fraction", *MEME)
    return both.agg(pl.col(columns).mean(), _ends=pl.len()).filter(pl.col("_ends") == 2).drop("_ends")


def with_both(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of curves that have prompts of both train and val."""
    both = frame.filter(pl.col("split").is_in(["train", "val"]))
    return both.filter((pl.col("split").n_unique() == 2).over(CURVE))


def sides(memes: pl.DataFrame, who: list[dict], views: curves.Views, source: str) -> tuple[list[dict], list[tuple]]:
    """Keys of every curve's gap, and its train and its val view."""
    train = (memes["split"] == "train").to_numpy()
    where = {"dataset": memes["dataset"][0], "split": "train-val", "source": source, "over": "split"}
    pairs = [(views.add(curve, train), views.add(curve, ~train)) for curve in range(len(who))]
    return [{**where, **curve} for curve in who], pairs
