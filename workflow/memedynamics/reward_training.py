"""Rewards along training: what the trainer drew, and what the base's samples foretold.

1. `rollouts`: the unit is a group, the completions to one prompt at one step. Values are means over groups with a
   cluster bootstrap over their prompts: over the groups of one `step`, of a `window` (all steps since the milestone
   before), of the `run`, or of a quarter of the run by forecast (`quarter1`, the lowest, to `quarter4`). A rollout is
   drawn by the policy as it was before the step's update. Where no group lost its advantage the interval is [0, 0]:
   the bootstrap cannot see what was not drawn.
2. `reward` is what the run was trained on: where a reward model grades (RLHF) its value, on a scale of its own.
   `rules_reward` is the study's weighted rules of the same completions in every run: these compare.
3. `reward_std_within` is the standard deviation (n − 1) inside a group. TRL's `reward_std` is that of all completions
   of a step together, between prompts too: another quantity, and always the larger part of it.
4. `zero_share`: groups whose rewards agree to 1e-6. TRL's `frac_reward_zero_std` compares a float32 deviation with
   1e-8, and eight rewards of .9 deviate by 6e-8: it misses such groups. With scale_rewards "batch" it is about the
   whole batch. reward_history compares the two.
5. `forecast`: zero_advantage's estimates for exactly the prompts drawn in a step, window or run (so a prompt counts
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
from memedynamics.prompts import Prompt
from memedynamics.rewards import answer, format_ok

RUN = ["method", "seed"]
SAME = 1e-6
MEASURES = ["reward", "rules_reward", "reward_std_within", "zero_share", "advantage_abs"]
FORECAST = [*zero_advantage.ESTIMATORS, "observed_minus_posterior"]
UNKNOWN = {
    "unbiased": "it has fewer base samples than completions in a group",
    "posterior": f"its base samples have more than {zero_advantage.MOST_OUTCOMES} different rewards",
}


def drawn(rollouts: Sequence[Path], prompt: Prompt, rules: Mapping[str, float]) -> pl.DataFrame:
    """Method, seed, step, id, sample, rewards, reward, advantage, and what `graded` adds, of all runs.

    Only group-based methods have rows.
    """
    columns = ["step", "id", "sample", "text", "rewards", "reward", "advantage"]
    return pl.concat(graded(gather.frames([path], "rollouts", columns, empty=True), prompt, rules) for path in rollouts)


def graded(rollouts: pl.DataFrame, prompt: Prompt, rules: Mapping[str, float]) -> pl.DataFrame:
    """`rollouts` with yes, no and format_ok of each text in its place, and rules_reward: the study's `rules` weighted.

    The answers are read as those of samples are. Raises InputError where a rollout was not graded by one of `rules`.
    """
    of_rules = [pl.col("rewards").map.get(name).alias(name) for name in rules]
    if lost := [column.name for column in rollouts.select(of_rules) if column.null_count()]:
        method, seed = rollouts.select(RUN).row(0)
        whose = f"rollouts of {method} seed {seed}, column rewards"
        raise InputError(f"{whose}: not graded by the study's {', '.join(lost)}; train this run again")
    answers = pl.Series([answer(text, prompt) for text in rollouts["text"]], dtype=pl.String)
    kept = pl.Series([format_ok(text, prompt) for text in rollouts["text"]], dtype=pl.Boolean)
    weighted = [weight * column for weight, column in zip(rules.values(), of_rules, strict=True)]
    return rollouts.drop("text").with_columns(
        yes=answers == "yes", no=answers == "no", format_ok=kept, rules_reward=pl.sum_horizontal(weighted)
    )


def groups(rollouts: pl.DataFrame, sizes: Mapping[str, int]) -> pl.DataFrame:
    """One row a group: method, seed, step, id, and the means of MEASURES, of what `graded` adds, and of each reward.

    Rewards have TRL's names for their means. A group starts at each sample 0. Raises InputError where a group has not
    `sizes[method]` completions.
    """
    started = (pl.col("sample") == 0).cum_sum().over(RUN).alias("group")
    names = rollouts["rewards"].map.keys().explode().unique().drop_nulls().sort()
    by_name = {f"rewards/{name}/mean": pl.col("rewards").map.get(name).mean() for name in names}
    reward = pl.col("reward")
    found = rollouts.with_columns(started).group_by(*RUN, "step", "group", "id", maintain_order=True).agg(
        reward.mean(), size=pl.len(), reward_std_within=reward.std(),
        zero_share=(reward.max() - reward.min() < SAME).cast(pl.Float64),
        advantage_abs=pl.col("advantage").abs().mean(), **by_name,
        **{name: pl.col(name).cast(pl.Float64).mean() for name in ("rules_reward", "yes", "no", "format_ok")},
    )  # fmt: skip
    for method, seed, step, meme, size in found.select(*RUN, "step", "id", "size").rows():
        if size != sizes.get(method, size):
            raise InputError(
                f"rollouts of {method} seed {seed}, step {step}, column sample: a group of {size} completions "
                f"to {meme!r}, but num_generations is {sizes[method]}; train this run again"
            )
    return found


def placed(found: pl.DataFrame, prompts: pl.DataFrame, runs: pl.DataFrame, in_domain: str) -> pl.DataFrame:
    """`found` (from `groups`) with the caption's cluster, its answers held against the label, and its window.

    Adds cluster, right, valid, tp, fp and fn as accuracy.per_prompt has them, milestone (fraction; the end of the
    window), and fraction (of training, of the group's step). Raises InputError for an id that is not a train meme of
    `in_domain`.
    """
    train = prompts.filter((pl.col("dataset") == in_domain) & (pl.col("split") == "train"))
    known = train.select("id", "label", cluster=pl.Series(stats.clusters(train["text"])))
    joined = found.join(known, on="id", how="left", maintain_order="left")
    if joined["cluster"].null_count():
        strange = joined.filter(pl.col("cluster").is_null())["id"][0]
        raise InputError(f"rollouts, column id: {strange!r} is no train meme of {in_domain}; train this run again")
    yes, no, label = pl.col("yes"), pl.col("no"), pl.col("label")
    joined = joined.with_columns(
        right=yes * label + no * (1 - label), valid=yes + no, tp=yes * label, fp=yes * (1 - label), fn=(1 - yes) * label
    ).drop("label")
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
