"""Accuracy of sampled answers and of the decision, with intervals and paired tests.

1. A statistic is the mean over a prompt's K responses, then over prompts. An invalid answer is wrong.
2. F1 (hateful), and macro-F1 over both classes, are those of a single response's parsed answer: true and false
   positives are expectations over the K responses. An invalid answer is a miss of its label's class and a claim of
   neither.
3. From P(Yes), not from the answers: AUROC ranks prompts by the mean p_hateful over K, and `decision_f1` is F1
   (hateful) of one decision a prompt, whether that mean is at least ½. A response without an answer block counts, by
   its forced header; `auroc_unforced` leaves it out.
4. Policies do not answer train memes themselves, so their train-val gap is that of the decision after the base's
   rationales, which `responses` hold for train, val and out of domain: `probe_accuracy` is the share of base
   responses after whose text P(Yes | Yes or No) lies on the label's side of ½, `probe_auroc` ranks its mean.
   The gap (train minus val, split `train-val`) is the difference of either; `…_gap_difference` is paired between
   methods. Read it with care: SFT and DPO were trained on texts among these. `accuracy_gap` is the base's own.
5. McNemar compares majority votes at the end of training: per seed between methods, and with the base; ties go by
   the mean p_hateful. Holm's family is one dataset and split.
"""

from itertools import combinations

import numpy as np
import polars as pl

from memedynamics import curves, stats
from memedynamics.gather import BASE, CURVE, MEME, finish
from memedynamics.stats import ratio

COLUMNS = ["present", "right", "valid", "format_ok", "cut", "forced", "length", "vote_right"]
COLUMNS += ["tp", "fp", "fn", "tp_benign", "fp_benign", "fn_benign", "p", "p_own", "unforced"]
DECIDED = ["decided_tp", "decided_fp", "decided_fn"]
COLUMNS += DECIDED
PROBE_COLUMNS = ["present", "right", "p"]

STATISTICS: curves.Statistics = {
    "accuracy": ("1", lambda s: ratio(s["right"], s["present"])),
    "accuracy_given_parse": ("1", lambda s: ratio(s["right"], s["valid"])),
    "majority_accuracy": ("1", lambda s: ratio(s["vote_right"], s["present"])),
    "f1": ("1", lambda s: stats.f1(s["tp"], s["fp"], s["fn"])),
    "macro_f1": (
        "1",
        lambda s: (stats.f1(s["tp"], s["fp"], s["fn"]) + stats.f1(s["tp_benign"], s["fp_benign"], s["fn_benign"])) / 2,
    ),
    "decision_f1": ("1", lambda s: stats.f1(*(s[name] for name in DECIDED))),
    "invalid_share": ("1", lambda s: ratio(s["present"] - s["valid"], s["present"])),
    "format_share": ("1", lambda s: ratio(s["format_ok"], s["present"])),
    "cut_share": ("1", lambda s: ratio(s["cut"], s["present"])),
    "forced_share": ("1", lambda s: ratio(s["forced"], s["present"])),
    "length": ("token", lambda s: ratio(s["length"], s["present"])),
}
COMPARED = ("accuracy", "f1", "macro_f1", "decision_f1", "auroc", "format_share")
PROBE_STATISTICS: curves.Statistics = {"probe_accuracy": ("1", lambda s: ratio(s["right"], s["present"]))}


def per_prompt(samples: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """Means over each prompt's responses: the columns COLUMNS by CURVE and MEME.

    `samples`: schema `samples` with method, seed and probe_kind; `length` in place of token_ids.
    """
    hateful, yes, no = pl.col("label") == 1, pl.col("answer") == "yes", pl.col("answer") == "no"
    counted = samples.join(prompts.select(*MEME, "label"), on=MEME).with_columns(
        tp=yes & hateful, fp=yes & ~hateful, fn=~yes & hateful,
        tp_benign=no & ~hateful, fp_benign=no & hateful, fn_benign=~no & ~hateful,
        right=pl.col("correct"), valid=yes | no, cut=pl.col("finish_reason") == "length",
        p=pl.col("p_hateful"), unforced=~pl.col("forced"), yes=yes, no=no,
    )  # fmt: skip
    later = ("present", "vote_right", "p_own", *DECIDED)
    means = [pl.col(c).cast(pl.Float64).mean() for c in COLUMNS if c not in later]
    decided = pl.col("p") >= 0.5
    return (
        counted.group_by(*CURVE, *MEME, "label")
        .agg(
            *means,
            p_own=pl.col("p").filter(pl.col("unforced")).mean().fill_null(0),
            votes=pl.col("yes").sum().cast(pl.Int64) - pl.col("no").sum().cast(pl.Int64),
        )
        .with_columns(
            present=pl.lit(1.0),
            vote_right=((_vote() == pl.col("label")) & (pl.col("valid") > 0)).cast(pl.Float64),
            decided_tp=(decided & (pl.col("label") == 1)).cast(pl.Float64),
            decided_fp=(decided & (pl.col("label") == 0)).cast(pl.Float64),
            decided_fn=(~decided & (pl.col("label") == 1)).cast(pl.Float64),
        )
    )


def _vote() -> pl.Expr:
    by_score = (pl.col("p") >= 0.5).cast(pl.Int8)
    return pl.when(pl.col("votes") == 0).then(by_score).otherwise((pl.col("votes") > 0).cast(pl.Int8))


def per_probe(responses: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """The decision after the base's rationales, mean over each prompt's responses: PROBE_COLUMNS by CURVE and MEME.

    `responses`: schema `responses` with method and seed.
    """
    decided = (
        responses.filter(pl.col("probe_kind") == "base_sample")
        .join(prompts.select(*MEME, "label"), on=MEME)
        .with_columns(right=(pl.col("p_hateful") >= 0.5) == (pl.col("label") == 1))
    )
    means = {"right": pl.col("right").cast(pl.Float64).mean(), "p": pl.col("p_hateful").mean()}
    return decided.group_by(*CURVE, *MEME).agg(**means).with_columns(present=pl.lit(1.0))


def measure(
    samples: pl.DataFrame,
    responses: pl.DataFrame,
    prompts: pl.DataFrame,
    runs: pl.DataFrame,
    resamples: int,
    in_domain: str,
) -> pl.DataFrame:
    """The analysis `accuracy`, in its schema (`study` left to the writer).

    `samples` and `responses` of all runs and the base; `prompts` from gather.prompts, `runs` from gather.milestones.
    """
    answers, probes = per_prompt(samples, prompts), per_probe(responses, prompts)
    rows: list[dict] = []
    for part in curves.by_split(answers):
        rows += _answers(part, prompts, resamples)
    for part in curves.by_split(probes):
        rows += _probes(part, prompts, resamples)
    trained = pl.col("dataset") == in_domain
    rows += _gap(answers.filter(trained), prompts, resamples, COLUMNS, {"accuracy": STATISTICS["accuracy"]})
    rows += _gap(probes.filter(trained), prompts, resamples, PROBE_COLUMNS, PROBE_STATISTICS)
    return finish(pl.DataFrame(_with_holm(rows), infer_schema_length=None), runs)


def _answers(frame: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> list[dict]:
    memes, who, views = curves.place(frame, prompts, COLUMNS)
    index = [views.add(curve) for curve in range(len(who))]
    compared = _comparisons(who)
    pairs = [views.pair(*pair) for pair in compared]
    cluster, weights = curves.resampling(memes, resamples)
    labels = memes["label"].to_numpy()
    estimates = curves.evaluate(views, COLUMNS, STATISTICS, cluster, weights)
    for name, score, valid in (("auroc", "p", "present"), ("auroc_unforced", "p_own", "unforced")):
        used = (COLUMNS.index(score), COLUMNS.index(valid))
        estimates[name] = curves.evaluate_auroc(views, *used, labels, cluster, weights)
    keys = [{**_where(memes), **curve, "versus": None} for curve in who]
    against = [{**keys[a], "versus": who[b]["method"]} for a, b in compared]
    rows = curves.level_rows(keys, views, index, estimates)
    rows += curves.difference_rows(against, views, pairs, {name: estimates[name] for name in COMPARED})
    return rows + _mcnemar(against, compared, views)


def _probes(frame: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> list[dict]:
    memes, who, views = curves.place(frame, prompts, PROBE_COLUMNS)
    index = [views.add(curve) for curve in range(len(who))]
    cluster, weights = curves.resampling(memes, resamples)
    estimates = curves.evaluate(views, PROBE_COLUMNS, PROBE_STATISTICS, cluster, weights)
    estimates["probe_auroc"] = curves.evaluate_auroc(views, 2, 0, memes["label"].to_numpy(), cluster, weights)
    keys = [{**_where(memes), **curve, "versus": None} for curve in who]
    return curves.level_rows(keys, views, index, estimates)


def _gap(
    frame: pl.DataFrame, prompts: pl.DataFrame, resamples: int, columns: list[str], statistics: curves.Statistics
) -> list[dict]:
    """Train minus val of every curve that has both; captions that occur in both splits are resampled together."""
    both = frame.filter(pl.col("split").is_in(["train", "val"]))
    both = both.filter((pl.col("split").n_unique() == 2).over(CURVE))
    if both.is_empty():
        return []
    memes, who, views = curves.place(both, prompts, columns)
    train = (memes["split"] == "train").to_numpy()
    pairs = [(views.add(curve, train), views.add(curve, ~train)) for curve in range(len(who))]
    cluster, weights = curves.resampling(memes, resamples)
    estimates = curves.evaluate(views, columns, statistics, cluster, weights)
    if columns is PROBE_COLUMNS:
        estimates["probe_auroc"] = curves.evaluate_auroc(views, 2, 0, memes["label"].to_numpy(), cluster, weights)
    keys = [{"dataset": memes["dataset"][0], "split": "train-val", **curve, "versus": None} for curve in who]
    rows = curves.difference_rows(keys, views, pairs, estimates, "_gap")
    return rows + _gap_differences(keys, views, pairs, estimates)


def _gap_differences(
    keys: list[dict], views: curves.Views, pairs: list[tuple[int, int]], estimates: dict[str, curves.Estimate]
) -> list[dict]:
    """Gaps of two methods at equal seed and fraction, first minus second, on the same prompts."""
    policies = [i for i, key in enumerate(keys) if key["method"] != BASE]
    compared = [(a, b) for a, b in combinations(policies, 2) if _condition(keys[a]) == _condition(keys[b])]
    against = [{**keys[a], "versus": keys[b]["method"]} for a, b in compared]
    train, val = (list(side) for side in zip(*pairs, strict=True))
    gaps = {
        f"{name}_gap": curves.Estimate(value[train] - value[val], drawn[:, train] - drawn[:, val], unit)
        for name, (value, drawn, unit) in estimates.items()
    }
    rows = []
    for (a, b), key in zip(compared, against, strict=True):
        for name, (value, drawn, unit) in gaps.items():
            low, high = (float(end) for end in stats.interval(drawn[:, a] - drawn[:, b]))
            row = {
                "statistic": f"{name}_difference",
                "value": float(value[a] - value[b]),
                "ci_low": low,
                "ci_high": high,
            }
            rows.append({**key, **row, "n": min(views.size(view) for view in pairs[a]), "unit": unit})
    return rows


def _where(memes: pl.DataFrame) -> dict[str, str]:
    return {"dataset": memes["dataset"][0], "split": memes["split"][0]}


def _comparisons(who: list[dict]) -> list[tuple[int, int]]:
    """Indices of curves to compare: each policy with the base, and methods at equal seed and fraction."""
    base = [i for i, curve in enumerate(who) if curve["method"] == BASE]
    policies = [i for i, curve in enumerate(who) if curve["method"] != BASE]
    matched = [(a, b) for a, b in combinations(policies, 2) if _condition(who[a]) == _condition(who[b])]
    return [(i, j) for i in policies for j in base] + matched


def _condition(curve: dict) -> tuple[int, float]:
    return curve["seed"], curve["fraction"]


def _mcnemar(keys: list[dict], compared: list[tuple[int, int]], views: curves.Views) -> list[dict]:
    final = max(key["fraction"] for key in keys) if keys else 0
    right = views.values[:, :, COLUMNS.index("vote_right")] > 0
    rows = []
    for key, (a, b) in zip(keys, compared, strict=True):
        common = views.present[:, a] & views.present[:, b]
        if key["fraction"] < final or not common.any():
            continue
        gains, losses, p = stats.mcnemar(right[common, a], right[common, b])
        for statistic, value, unit in (
            ("only_this_right", gains, "prompt"),
            ("only_versus_right", losses, "prompt"),
            ("mcnemar_p", p, "1"),
        ):
            row = {"statistic": statistic, "value": float(value), "ci_low": np.nan, "ci_high": np.nan}
            rows.append({**key, **row, "n": int(common.sum()), "unit": unit})
    return rows


def _with_holm(rows: list[dict]) -> list[dict]:
    tests: dict[tuple, list[dict]] = {}
    for row in rows:
        if row["statistic"] == "mcnemar_p":
            tests.setdefault((row["dataset"], row["split"]), []).append(row)
    adjusted = []
    for family in tests.values():
        for row, p in zip(family, stats.holm([row["value"] for row in family]), strict=True):
            adjusted.append({**row, "statistic": "mcnemar_p_holm", "value": float(p)})
    return rows + adjusted
