"""Rewards along training: what the trainer drew, and what the base's samples foretold.

1. `rollouts`: the unit is a group, the completions to one prompt at one step. Values are means over groups with a
   cluster bootstrap over their prompts: over the groups of one `step`, of a `window` (all steps since the milestone
   before), of the `run`, or of a quarter of the run by forecast (`quarter1`, the lowest, to `quarter4`). A rollout is
   drawn by the policy as it was before the step's update. Where no group lost its advantage the interval is [0, 0]:
   the bootstrap cannot see what was not drawn.
2. `reward_std_within` is the standard deviation (n − 1) inside a group. TRL's `reward_std` is that of all completions
   of a step together, between prompts too: another quantity, and always the larger part of it.
3. `zero_share`: groups whose rewards agree to 1e-6. TRL's `frac_reward_zero_std` compares a float32 deviation with
   1e-8, and eight rewards of .9 deviate by 6e-8: it misses such groups. With scale_rewards "batch" it is about the
   whole batch. reward_history compares the two.
4. `forecast`: zero_advantage's estimates for exactly the prompts drawn in a step, window or run (so a prompt counts
   as often as it was drawn), beside the observed `zero_share` of source rollouts; `observed_minus_posterior` is their
   paired difference. It starts near 0, since the first groups are the base's own, and grows as the policy moves. A run
   that starts elsewhere has moved before.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from memedynamics import gather, stats, zero_advantage
from memedynamics.errors import InputError

RUN = ["method", "seed"]
SAME = 1e-6
MEASURES = ["reward", "reward_std_within", "zero_share", "advantage_abs"]
FORECAST = [*zero_advantage.ESTIMATORS, "observed_minus_posterior"]
UNKNOWN = {
    "unbiased": "it has fewer base samples than completions in a group",
    "posterior": f"its base samples have more than {zero_advantage.MOST_OUTCOMES} different rewards",
}


def drawn(rollouts: Sequence[Path]) -> pl.DataFrame:
    """Method, seed, step, id, sample, rewards, reward, advantage of all runs; only group-based methods have rows."""
    columns = ["step", "id", "sample", "rewards", "reward", "advantage"]
    return gather.frames(rollouts, "rollouts", columns, empty=True)


def groups(rollouts: pl.DataFrame, sizes: Mapping[str, int]) -> pl.DataFrame:
    """One row a group: method, seed, step, id, and the means of MEASURES and of each reward under TRL's name for it.

    A group starts at each sample 0. Raises InputError where a group has not `sizes[method]` completions.
    """
    started = (pl.col("sample") == 0).cum_sum().over(RUN).alias("group")
    names = rollouts["rewards"].map.keys().explode().unique().drop_nulls().sort()
    by_name = {f"rewards/{name}/mean": pl.col("rewards").map.get(name).mean() for name in names}
    reward = pl.col("reward")
    found = rollouts.with_columns(started).group_by(*RUN, "step", "group", "id", maintain_order=True).agg(
        reward.mean(), size=pl.len(), reward_std_within=reward.std(),
        zero_share=(reward.max() - reward.min() < SAME).cast(pl.Float64),
        advantage_abs=pl.col("advantage").abs().mean(), **by_name,
    )  # fmt: skip
    for method, seed, step, meme, size in found.select(*RUN, "step", "id", "size").rows():
        if size != sizes.get(method, size):
            raise InputError(
                f"rollouts of {method} seed {seed}, step {step}, column sample: a group of {size} completions "
                f"to {meme!r}, but num_generations is {sizes[method]}; train this run again"
            )
    return found


def placed(found: pl.DataFrame, prompts: pl.DataFrame, runs: pl.DataFrame, in_domain: str) -> pl.DataFrame:
    """`found` (from `groups`) with the caption's cluster, and the milestone that ends each group's window.

    Adds cluster, milestone (fraction), and fraction (of training, of the group's step). Raises InputError for an id
    that is not a train meme of `in_domain`.
    """
    train = prompts.filter((pl.col("dataset") == in_domain) & (pl.col("split") == "train"))
    known = train.select("id", cluster=pl.Series(stats.clusters(train["text"])))
    joined = found.join(known, on="id", how="left", maintain_order="left")
    if joined["cluster"].null_count():
        strange = joined.filter(pl.col("cluster").is_null())["id"][0]
        raise InputError(f"rollouts, column id: {strange!r} is no train meme of {in_domain}; train this run again")
    ends = runs.filter(pl.col("step") > 0).select(*RUN, "step", milestone="fraction").sort("step")
    total = runs.filter(pl.col("fraction") == 1).select(*RUN, total="step")
    whole = joined.sort("step").join_asof(ends, on="step", by=RUN, strategy="forward", check_sortedness=False)
    return whole.join(total, on=RUN, how="left").with_columns(fraction=pl.col("step") / pl.col("total"))


def with_forecast(
    found: pl.DataFrame, base: pl.DataFrame, sizes: Mapping[str, int], in_domain: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`found` with ESTIMATORS for each group's prompt, and the forecast of all train prompts by method.

    `base`: base samples with reward. A method that `sizes` does not name gets empty estimates.
    """
    train = base.filter((pl.col("dataset") == in_domain) & (pl.col("split") == "train"))
    each = [zero_advantage.forecast(train, size).with_columns(method=pl.lit(name)) for name, size in sizes.items()]
    empty = zero_advantage.forecast(train.head(1), 1).clear().with_columns(method=pl.lit("").head(0))
    ahead = pl.concat([*each, empty]) if each else empty
    known = ahead.select("method", "id", *zero_advantage.ESTIMATORS)
    joined = found.join(known, on=["method", "id"], how="left", maintain_order="left")
    error = pl.col("zero_share") - pl.col("posterior")
    return joined.with_columns(observed_minus_posterior=error), ahead


def rows(found: pl.DataFrame, resamples: int) -> list[dict]:
    """Means over the groups of each step, window and run, with intervals; `found` from `placed`, `with_forecast`."""
    measured = [*MEASURES, *(name for name in found.columns if name.startswith("rewards/"))]
    result: list[dict] = []
    rank = pl.col("posterior").fill_nan(None).rank("ordinal").over(RUN) - 1
    quarter = pl.concat_str(pl.lit("quarter"), rank * 4 // pl.len().over(RUN) + 1)
    ends = [(pl.lit("step"), pl.col("fraction")), (pl.lit("window"), pl.col("milestone"))]
    for over, end in [*ends, (pl.lit("run"), pl.lit(1.0)), (quarter, pl.lit(1.0))]:
        parts = found.with_columns(_end=end, _over=over).drop_nulls(["_end", "_over"])
        for (method, seed, fraction, name), part in parts.group_by(*RUN, "_end", "_over", maintain_order=True):
            key = {"method": method, "seed": seed, "fraction": fraction, "over": name}
            result += _means({**key, "source": "rollouts"}, part, measured, resamples)
            if part["plug_in"].null_count() == 0:
                result += _means({**key, "source": "forecast"}, part, FORECAST, resamples)
    return result


def _means(key: dict, part: pl.DataFrame, columns: Sequence[str], resamples: int) -> list[dict]:
    columns = [name for name in columns if part[name].null_count() < len(part)]
    cluster = np.unique(part["cluster"].to_numpy(), return_inverse=True)[1]
    values = part.select(columns).with_columns(_one=pl.lit(1.0)).to_numpy()
    drawn = stats.resampled_sums(values, cluster, _weights(int(cluster.max()) + 1, resamples))
    low, high = stats.interval(drawn[:, :-1] / drawn[:, -1:])
    numbers = zip(columns, values.mean(axis=0), low, high, strict=False)
    given = {**key, "n": part["id"].n_unique(), "unit": "1"}
    return [
        {**given, "statistic": _name(name), "value": v, "ci_low": lo, "ci_high": hi, "missing": _why(name, v)}
        for name, v, lo, hi in numbers
    ]


@functools.lru_cache(maxsize=64)
def _weights(clusters: int, resamples: int) -> np.ndarray:
    return stats.resample_weights(clusters, resamples, "groups")


def _name(column: str) -> str:
    return f"zero_share_{column}" if column in zero_advantage.ESTIMATORS else column


def _why(column: str, value: float) -> str | None:
    return UNKNOWN.get(column, UNKNOWN["posterior"]) if np.isnan(value) else None


def ahead_rows(ahead: pl.DataFrame, pairs: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> list[dict]:
    """The forecast before training: over all train prompts, and over those that gave a pair; `ahead` as above.

    `pairs` are the preferences' keys (dataset, id). Seed is empty: every run of the method starts from it.
    """
    texts = prompts.select(*zero_advantage.PROMPT, "text").join(
        ahead.select(zero_advantage.PROMPT).unique(), on=zero_advantage.PROMPT, how="semi"
    )
    known = texts.with_columns(cluster=pl.Series(stats.clusters(texts["text"]))).drop("text")
    whole = ahead.join(known, on=zero_advantage.PROMPT)
    result: list[dict] = []
    for over, part in (("split", whole), ("paired", whole.join(pairs, on=["dataset", "id"], how="semi"))):
        for (method,), found in part.group_by("method", maintain_order=True):
            key = {"method": method, "fraction": 0.0, "over": over, "source": "forecast"}
            result += _means(key, found.sort(zero_advantage.PROMPT), zero_advantage.ESTIMATORS, resamples)
    return result
