"""Format, accuracy and reward of every policy's own answers, and what changed along training.

1. From samples (base samples of the base, own samples of the policies, every milestone): `accuracy`'s statistics of
   the same names (`f1` is of the sampled answers, `auroc` and `decision_f1` are from P(Yes)), parse_share (a valid
   answer; the rest of the format may be broken), the mean reward, and `reward_std_within`, the standard deviation
   (n − 1) of the reward inside a prompt, the scale GRPO divides by. `_difference` is policy minus base on the same
   prompts.
2. Train minus val (`_gap`, split train-val): the base's own in every statistic of the samples, source samples; of
   methods that draw groups while they train, by their rollouts, source rollouts: reward_gaps, which also says what
   a run cannot have. `reward` is by the study's rules but in rows along training: see reward_training.
3. Along training: reward_training. Its rows have another `source`, and `over` says which groups a value is about.
4. A learnt reward (source reward_model): how often the reward model prefers the chosen response of pairs that were held
   out of its training. At a coin's ½ it tells a policy nothing that the labels say.
"""

from collections.abc import Mapping

import polars as pl

from memedynamics import accuracy, curves, reward_gaps, reward_history, reward_training
from memedynamics.gather import BASE, CURVE, MEME, finish
from memedynamics.stats import ratio

COLUMNS = [*accuracy.COLUMNS, "reward", "reward_std", "several"]
STATISTICS: curves.Statistics = reward_gaps.STATISTICS | {
    "decision_f1": accuracy.STATISTICS["decision_f1"],
    "length": accuracy.STATISTICS["length"],
    "reward_std_within": ("1", lambda s: ratio(s["reward_std"], s["several"])),
}
REWARD_MODEL = "reward_model"


def per_prompt(samples: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """COLUMNS by CURVE and MEME: accuracy.per_prompt, and the mean and standard deviation of the reward."""
    spread = pl.col("reward").std()
    rewards = samples.group_by(*CURVE, *MEME).agg(
        pl.col("reward").mean(), reward_std=spread.fill_null(0), several=spread.is_not_null().cast(pl.Float64)
    )
    return accuracy.per_prompt(samples, prompts).join(rewards, on=[*CURVE, *MEME], nulls_equal=True)


def measure(
    samples: pl.DataFrame,
    history: pl.DataFrame,
    rollouts: pl.DataFrame,
    pairs: pl.DataFrame,
    prompts: pl.DataFrame,
    runs: pl.DataFrame,
    resamples: int,
    in_domain: str,
    sizes: Mapping[str, int],
    report: Mapping[str, float] | None = None,
) -> pl.DataFrame:
    """The analysis `rewards`, in its schema (`study` left to the writer).

    `samples` of all runs and the base, with probe_kind and length; `history` from reward_history.logged, `rollouts`
    from reward_training.drawn; `pairs` the preferences' dataset and id; `sizes` num_generations by method;
    `report` what is known of the reward model, where the study has one.
    """
    answers = per_prompt(samples, prompts)
    groups = reward_training.placed(reward_training.groups(rollouts, sizes), prompts, runs, in_domain)
    base = samples.filter(pl.col("method") == BASE)
    groups, ahead = reward_training.with_forecast(groups, base, sizes, in_domain)
    rows = [row for part in curves.by_split(answers) for row in _answers(part, prompts, resamples)]
    rows += _base_gap(answers.filter(pl.col("dataset") == in_domain), prompts, resamples)
    rows += reward_gaps.rows(answers.filter(pl.col("dataset") == in_domain), groups, prompts, runs, resamples)
    rows += reward_gaps.missing_rows(groups, runs, in_domain)
    rows += _without_groups(runs, groups, in_domain)
    train = {"dataset": in_domain, "split": "train"}
    along = reward_training.rows(groups, resamples) + reward_training.ahead_rows(ahead, pairs, prompts, resamples)
    along += reward_history.rows(history, runs) + reward_history.check_rows(history, groups)
    along += _reward_model(report) if report else []
    rows += [{**train, **row} for row in along]
    table = pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"seed": pl.Int32, "missing": pl.String})
    return finish(table.drop("probe_kind"), _every_step(runs, history, rollouts))


def _answers(frame: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> list[dict]:
    """Every curve of one split, and each policy minus the base."""
    memes, who, views = curves.place(frame, prompts, COLUMNS)
    index = [views.add(curve) for curve in range(len(who))]
    base = [i for i, curve in enumerate(who) if curve["method"] == BASE]
    compared = [(i, j) for j in base for i in range(len(who)) if i != j]
    pairs = [views.pair(*pair) for pair in compared]
    estimates = _estimates(memes, views, resamples)
    where = {"dataset": memes["dataset"][0], "split": memes["split"][0], "source": "samples", "over": "split"}
    keys = [{**where, **curve} for curve in who]
    rows = curves.level_rows(keys, views, index, estimates)
    return rows + curves.difference_rows([keys[i] for i, _ in compared], views, pairs, estimates)


def _estimates(memes: pl.DataFrame, views: curves.Views, resamples: int) -> dict[str, curves.Estimate]:
    cluster, weights = curves.resampling(memes, resamples)
    estimates = curves.evaluate(views, COLUMNS, STATISTICS, cluster, weights)
    used, labels = (COLUMNS.index("p"), COLUMNS.index("present")), memes["label"].to_numpy()
    return estimates | {"auroc": curves.evaluate_auroc(views, *used, labels, cluster, weights)}


def _base_gap(answers: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> list[dict]:
    """The base's answers to train minus those to val, in every statistic of the samples."""
    both = reward_gaps.with_both(answers.filter(pl.col("method") == BASE))
    if both.is_empty():
        return []
    memes, who, views = curves.place(both, prompts, COLUMNS)
    keys, pairs = reward_gaps.sides(memes, who, views, "samples")
    return curves.difference_rows(keys, views, pairs, _estimates(memes, views, resamples), "_gap")


def _reward_model(report: Mapping[str, float]) -> list[dict]:
    """Accuracy and mean margin of the reward model on its held-out pairs: no policy's, so a row before training."""
    key = {"method": REWARD_MODEL, "seed": None, "fraction": 0.0, "source": REWARD_MODEL, "over": "held_out"}
    key |= {"n": report["n"], "unit": "1"}
    ends = {name: report[name] for name in ("ci_low", "ci_high")}
    return [
        {**key, "statistic": "reward_model_accuracy", "value": report["accuracy"], **ends},
        {**key, "statistic": "reward_model_margin", "value": report["margin"], "ci_low": None, "ci_high": None},
    ]


def _without_groups(runs: pl.DataFrame, groups: pl.DataFrame, in_domain: str) -> list[dict]:
    """What runs without rollouts cannot have: a share of groups without advantage."""
    ends = runs.filter((pl.col("method") != BASE) & (pl.col("fraction") == 1))
    lacking = ends.join(groups, on=["method", "seed"], how="anti").select("method", "seed", "fraction").to_dicts()
    share = {"dataset": in_domain, "split": "train", "source": "rollouts", "over": "run", "statistic": "zero_share"}
    share |= {**dict.fromkeys(("value", "ci_low", "ci_high")), "n": 0, "unit": "1", "missing": reward_gaps.NO_GROUPS}
    return [{**share, **run} for run in lacking]


def _every_step(runs: pl.DataFrame, *tables: pl.DataFrame) -> pl.DataFrame:
    """`runs` and, at their share of training, all steps that `tables` have."""
    ends = runs.filter(pl.col("fraction") == 1).select("method", "seed", "reference", total="step")
    seen = pl.concat([table.select("method", "seed", "step") for table in tables]).unique()
    steps = seen.join(ends, on=["method", "seed"]).with_columns(fraction=pl.col("step") / pl.col("total"))
    columns = ["method", "seed", "fraction", "step", "reference"]
    return pl.concat([runs.select(columns), steps.select(columns)]).unique()
