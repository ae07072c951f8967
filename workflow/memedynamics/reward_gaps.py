"""Train minus val of the rewards and their parts, of policies that draw completions to train memes while they train.

1. Policies do not answer train memes at their milestones. `_gap` takes the rollouts of a window of steps between two
   milestones (train) against the mean of the own samples at the two (val; the base's for the first window): the policy
   changes within a window, and the milestone at its end alone would be up to a window ahead of the rollouts.
2. `_base_gap` is the base on exactly the same prompts, `_gained_gap` the difference of the two: the gap without what
   the prompts' difficulty makes of it. Prompts that were chosen on these very base samples (paired) hold too many of
   the base's lucky and unlucky draws: between samples and rollouts they regress to their mean.
3. `reward` is by the study's rules on both sides, whatever a run was trained on: a reward model's values are on a
   scale of its own, and it grades neither own nor base samples.
4. What a run cannot have is a row with its reason at the end of training: everything where no groups are drawn, and
   what rollouts do not hold (`UNDRAWN`). The analysis `accuracy` has the gap of P(Yes) after the base's rationales, of
   every run.
"""

from collections.abc import Callable

import numpy as np
import polars as pl

from memedynamics import accuracy, curves
from memedynamics.gather import BASE, CURVE, MEME
from memedynamics.stats import ratio

# What rollouts and samples both have.
COLUMNS = ["right", "valid", "format_ok", "tp", "fp", "fn", "reward"]
STATISTICS: curves.Statistics = {
    name: accuracy.STATISTICS[name] for name in ("accuracy", "accuracy_given_parse", "f1", "format_share")
} | {
    "parse_share": ("1", lambda s: ratio(s["valid"], s["present"])),
    "reward": ("1", lambda s: ratio(s["reward"], s["present"])),
}
NO_GROUPS = "it draws no groups of completions to train memes"
NO_DECISION = (
    "its rollouts hold no P(Yes); the analysis accuracy has the gap of the decision after the base’s rationales"
)
NO_TOKENS = "its rollouts hold no lengths in tokens"
NO_SIZE = "no groups are drawn to val memes, and a spread depends on how many completions it is taken of"
UNDRAWN = {
    "auroc": NO_DECISION,
    "decision_f1": NO_DECISION,
    "length": NO_TOKENS,
    "reward_std_within": NO_SIZE,
    "zero_share": NO_SIZE,
}


def rows(
    answers: pl.DataFrame, groups: pl.DataFrame, prompts: pl.DataFrame, runs: pl.DataFrame, resamples: int
) -> list[dict]:
    """Rollouts on train minus own samples on val, the base's gap on the same prompts, and their difference."""
    columns = ["present", *COLUMNS, *(f"base_{name}" for name in COLUMNS)]
    both = with_both(_both_sides(answers, groups, runs).select(*CURVE, *MEME, *columns))
    if both.is_empty():
        return []
    memes, who, views = curves.place(both, prompts, columns)
    keys, pairs = sides(memes, who, views, "rollouts")
    statistics: curves.Statistics = {}
    for name, (unit, measure) in STATISTICS.items():
        statistics |= _beside_base(name, unit, measure)
    estimates = curves.evaluate(views, columns, statistics, *curves.resampling(memes, resamples))
    return curves.difference_rows(keys, views, pairs, estimates, "_gap")


def _beside_base(name: str, unit: str, measure: Callable[[curves.Sums], np.ndarray]) -> curves.Statistics:
    def base(sums: curves.Sums) -> np.ndarray:
        return measure({"present": sums["present"]} | {column: sums[f"base_{column}"] for column in COLUMNS})

    return {
        name: (unit, measure),
        f"{name}_base": (unit, base),
        f"{name}_gained": (unit, lambda sums: measure(sums) - base(sums)),
    }


def missing_rows(groups: pl.DataFrame, runs: pl.DataFrame, in_domain: str) -> list[dict]:
    """A row at the end of training for every gap that a run cannot have, with the reason."""
    ends = runs.filter((pl.col("method") != BASE) & (pl.col("fraction") == 1)).select("method", "seed", "fraction")
    fixed = {"dataset": in_domain, "split": "train-val", "source": "rollouts", "over": "split", "n": 0}
    fixed |= dict.fromkeys(("value", "ci_low", "ci_high"))
    result = []
    for how, lacking in (("anti", dict.fromkeys([*STATISTICS, *UNDRAWN], NO_GROUPS)), ("semi", UNDRAWN)):
        for run in ends.join(groups, on=["method", "seed"], how=how).to_dicts():
            result += [
                {**fixed, **run, "statistic": f"{name}_gap", "unit": _unit(name), "missing": why}
                for name, why in lacking.items()
            ]
    return result


def _unit(name: str) -> str:
    return accuracy.STATISTICS[name][0] if name in accuracy.STATISTICS else "1"


def _both_sides(answers: pl.DataFrame, groups: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """Means by CURVE and MEME of rollouts (train) and own samples (val), with the base's beside them."""
    base = answers.filter(pl.col("method") == BASE)
    beside = base.select(*MEME, *(pl.col(name).alias(f"base_{name}") for name in COLUMNS))
    graded = groups.drop_nulls("milestone").with_columns(reward="rules_reward")
    drawn = graded.group_by("method", "seed", "milestone", "id").agg(pl.col(COLUMNS).mean())
    train = drawn.rename({"milestone": "fraction"}).with_columns(
        dataset=pl.lit(base["dataset"].first(), pl.String), split=pl.lit("train")
    )
    val = _between(answers.filter(pl.col("split") == "val"), runs, COLUMNS)
    sides = pl.concat([val, train.select(val.columns)])
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
