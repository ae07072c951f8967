"""Confidence, disagreement and information: is a more accurate policy a surer one, and does it know when it is wrong?

1. Headline, estimator exact: H(mean_i q_i) with q_i = P(Yes | Yes or No) after the policy's own i-th rationale,
   jackknifed over the K samples; `exact_uncorrected` is the same without the jackknife. It is
   `entropy_given_rationale`, the mean H(q_i), plus `information_rationale`, I(decision; rationale | x), exactly, with
   either estimator.
2. From the K sampled answers alone: plug_in, posterior (Beta(½, ½)), and `gini`, unbiased. See `information` for
   biases. K is the same for every prompt and policy, or entropies would differ by their bias; a table that breaks
   this is refused.
3. `invalid`: what is done with a response that has no answer. forced: decided after a canonical answer header, so K
   is equal for all (headline); dropped: left out, so that the prompt rests on fewer than K; third: an outcome of its
   own, with certainty for the sampled answer and for a forced header, with what P(Yes) + P(No) leaves over otherwise.
4. `information_label` is I(ŷ; label) over prompts, `information_base` I(ŷ_π; ŷ_π0) of two answers to the same prompt,
   drawn apart. The plug-in, `…_plug_in`, is biased up and has no interval, since resamples are biased doubly;
   `…_null` is mean and 95 % range of what it shows with the prompts shuffled. The value is the plug-in less that mean,
   at least 0, and its interval starts at 0 where shuffled prompts show as much: see `information`.
5. Do more accurate policies have lower entropy? Across prompts: `auroc_error`, AUROC of H(mean_i q_i) for a wrong
   decision. Across milestones: `milestone_correlation` (Spearman) and `entropy_slope` of entropy on accuracy over a
   run's path, on the memes that every policy answered at every milestone (`path_entropy`, `path_accuracy`). At
   matched accuracy: `matched_entropy_difference` between methods where both first reach `matched_accuracy`. Across
   runs: `run_correlation` at the end of training, method "all runs"; n counts milestones in the second, runs in the
   last. A response without an answer is wrong in the accuracy and forced in the entropy: where policies differ in
   format, so does part of their entropy at equal accuracy.
6. Calibration of the mean decision: see `calibration`. `confident_error_rate` is the share of prompts decided wrongly
   with confidence of at least 0.9, `confident_error_given_confident` the share of errors among those so confident.
7. `token_entropy`: entropy over the vocabulary, ratio of sums over tokens, by span; on base samples all policies read
   the same text, on own samples each its own. A response without an answer counts in spans it has.
8. The base's samples are used on the splits that policies answered. n counts the prompts asked, whichever are
   dropped.

Published numbers to compare with stand in the figure's note.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from memedynamics import curves, stats
from memedynamics.answer_entropy import COLUMNS, MEASURES, SHARES, TERMS
from memedynamics.calibration import BoundedEce, bounded_ece, confidence, difference, risk_coverage, wrong
from memedynamics.entropy_paths import path_rows, run_row
from memedynamics.gather import BASE, finish
from memedynamics.information import binary, bounded_information, entropy
from memedynamics.relations import comparisons
from memedynamics.stats import ratio
from memedynamics.token_entropy import token_rows

COVERAGES = tuple(round(0.1 * i, 1) for i in range(1, 11))
# A row's own keys, in front of its statistic.
KEYS = ("estimator", "invalid", "span", "coverage")


def _per(numerator: str, denominator: str = "present") -> tuple:
    return lambda sums: ratio(sums[numerator], sums[denominator])


HEADLINE = "exact/forced///entropy"
STATISTICS: curves.Statistics = {name: (unit, _per(name, f"{name}#")) for name, unit in MEASURES.items()} | {
    "////accuracy": ("1", _per("right")),
    "////brier": ("1", _per("brier")),
    "////confident_share": ("1", _per("sure")),
    "////confident_error_rate": ("1", _per("sure_wrong")),
    "////confident_error_given_confident": ("1", _per("sure_wrong", "sure")),
}
COMPARED = [*(f"exact/forced///{term}" for term in TERMS), "////brier", "////aurc", "////auroc_error"]


def measure(
    samples: pl.DataFrame, tokens: pl.DataFrame, prompts: pl.DataFrame, runs: pl.DataFrame, resamples: int
) -> pl.DataFrame:
    """The analysis `entropy`, in its schema (`study` left to the writer).

    `samples` from answer_entropy.per_prompt, `tokens` from token_entropy.per_prompt with method and seed, `prompts`
    and `runs` from gather; `resamples` is also the number of permutations and of draws of every null.
    """
    answered = samples.filter(pl.col("method") != BASE).select("dataset", "split").unique()
    kept = samples.join(answered, on=["dataset", "split"], how="semi") if len(answered) else samples
    rows: list[dict] = []
    for part in curves.by_split(kept):
        rows += _rows(part, prompts, runs, resamples)
    for part in curves.by_split(tokens):
        rows += token_rows(part, prompts, resamples)
    parts = pl.col("statistic").str.split("/")
    named = {key: parts.list.get(i).replace("", None) for i, key in enumerate(KEYS)}
    table = pl.DataFrame(rows, infer_schema_length=None).with_columns(**named, statistic=parts.list.get(len(KEYS)))
    return finish(table.with_columns(pl.col("coverage").cast(pl.Float64)), runs)


def _rows(frame: pl.DataFrame, prompts: pl.DataFrame, runs: pl.DataFrame, resamples: int) -> list[dict]:
    memes, who, views = curves.place(frame, prompts, COLUMNS)
    index = [views.add(curve) for curve in range(len(who))]
    compared = comparisons(who)
    pairs = [views.pair(*pair) for pair in compared]
    shared = views.present.all(axis=1)
    path = [views.add(curve, shared) for curve in range(len(who))]
    cluster, weights = curves.resampling(memes, resamples)
    labels = memes["label"].to_numpy()
    estimates = curves.evaluate(views, COLUMNS, STATISTICS, cluster, weights)
    estimates |= _ranked(views, labels, cluster, weights)
    where = {"dataset": memes["dataset"][0], "split": memes["split"][0]}
    keys = [{**where, **curve, "versus": None} for curve in who]
    against = [{**keys[a], "versus": who[b]["method"]} for a, b in compared]
    rows = curves.level_rows(keys, views, index, estimates)
    rows += curves.difference_rows(against, views, pairs, {name: estimates[name] for name in COMPARED})
    eces = [_ece(views, view, labels, cluster, weights) for view in range(len(views.masks))]
    rows += _ece_rows(keys, [eces[view] for view in index], [views.size(view) for view in index])
    rows += _ece_differences(against, [(eces[a], eces[b]) for a, b in pairs], [views.size(a) for a, _ in pairs])
    rows += _informed(keys, who, views, labels, cluster, weights)
    both = {"path_entropy": estimates[HEADLINE], "path_accuracy": estimates["////accuracy"]}
    return rows + path_rows(keys, views, path, both, runs) + run_row(keys, index, both)


def _ranked(
    views: curves.Views, labels: np.ndarray, cluster: np.ndarray, weights: np.ndarray
) -> dict[str, curves.Estimate]:
    """What needs the prompts in the order of their confidence: AURC, risk at COVERAGES, AUROC for errors."""
    found = [
        [_ranked_once(views.values[mask, curve, COLUMNS.index("q")], labels[mask], w) for w in (None, drawn)]
        for curve, mask in zip(views.curves, views.masks, strict=True)
        for drawn in [weights[:, cluster[mask]]]
    ]
    return {
        name: curves.Estimate(
            np.array([plain[name][0] for plain, _ in found]), np.stack([drawn[name] for _, drawn in found], axis=1), "1"
        )
        for name in found[0][0]
    }


def _ranked_once(q: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> dict[str, np.ndarray]:
    sure, errors = confidence(q), wrong(q, labels)
    curve = risk_coverage(sure, errors, COVERAGES, weights)
    risks = {f"///{coverage}/risk": curve.risk[:, i] for i, coverage in enumerate(COVERAGES)}
    area = stats.auroc(entropy(binary(q)), errors.astype(int), weights)
    return {"////aurc": curve.aurc, "////auroc_error": area} | risks


def _ece(views: curves.Views, view: int, labels: np.ndarray, cluster: np.ndarray, weights: np.ndarray) -> BoundedEce:
    mask = views.masks[view]
    q = views.values[mask, views.curves[view], COLUMNS.index("q")]
    return bounded_ece(confidence(q), ~wrong(q, labels[mask]), weights[:, cluster[mask]])


def _ece_rows(keys: list[dict], eces: list[BoundedEce], sizes: list[int]) -> list[dict]:
    """Each curve's ECE, and that of a calibrated model with its confidences."""
    rows = []
    for key, found, n in zip(keys, eces, sizes, strict=True):
        rows.append(key | _estimate("////ece", *found[:3], n))
        rows += _null_rows([key], "////ece_null", found.null[:, None], [n], "1")
    return rows


def _ece_differences(keys: list[dict], pairs: list[tuple[BoundedEce, BoundedEce]], sizes: list[int]) -> list[dict]:
    return [
        key | _estimate("////ece_difference", *difference(*pair), n)
        for key, pair, n in zip(keys, pairs, sizes, strict=True)
    ]


def _estimate(name: str, value: float, low: float, high: float, n: int) -> dict:
    return {"statistic": name, "value": value, "ci_low": low, "ci_high": high, "n": n, "unit": "1"}


def _informed(
    keys: list[dict], who: list[dict], views: curves.Views, labels: np.ndarray, cluster: np.ndarray, weights: np.ndarray
) -> list[dict]:
    """Information of each curve's answers on the label, and of each policy's on the base's, with their nulls."""
    base = next((i for i, curve in enumerate(who) if curve["method"] == BASE), None)
    rows = []
    for name, columns in SHARES.items():
        share = views.values[:, :, [COLUMNS.index(column) for column in columns]]
        groups = [("information_label", np.stack([labels == 0, labels == 1], axis=1).astype(float), range(len(who)))]
        if base is not None:
            groups.append(("information_base", share[:, base], [i for i in range(len(who)) if i != base]))
        for statistic, other, found in groups:
            versus = BASE if statistic == "information_base" else None
            for mask, chosen in _by_mask(views.present, other.sum(1) > 0, found):
                a, b = share[mask][:, chosen], other[mask]
                drawn = (cluster[mask], weights)
                keyed = [{**keys[i], "versus": versus} for i in chosen]
                rows += _information_rows(keyed, f"{name}///{statistic}", a, b, drawn)
    return rows


def _by_mask(present: np.ndarray, asked: np.ndarray, found: Sequence[int]) -> list[tuple[np.ndarray, list[int]]]:
    """The curves `found` grouped by the prompts they share with `asked` (n,): one set of shuffles serves a group."""
    groups: dict[bytes, tuple[np.ndarray, list[int]]] = {}
    for curve in found:
        mask = present[:, curve] & asked
        groups.setdefault(mask.tobytes(), (mask, []))[1].append(curve)
    return list(groups.values())


def _information_rows(
    keys: list[dict], name: str, a: np.ndarray, b: np.ndarray, drawn: tuple[np.ndarray, np.ndarray]
) -> list[dict]:
    found = bounded_information(a, b, *drawn, name)
    sizes = [len(a)] * len(keys)
    plain = (found.plug_in, *np.full((2, len(keys)), np.nan))
    rows = _interval_rows(keys, name, *found[:3], sizes, "nat")
    rows += _interval_rows(keys, f"{name}_plug_in", *plain, sizes, "nat")
    return rows + _null_rows(keys, f"{name}_null", found.null, sizes, "nat")


def _null_rows(keys: list[dict], name: str, null: np.ndarray, sizes: list[int], unit: str) -> list[dict]:
    """Mean and 95 % range of the draws `null` (draws, keys)."""
    return _interval_rows(keys, name, null.mean(0), *stats.interval(null), sizes, unit)


def _interval_rows(
    keys: list[dict], name: str, value: np.ndarray, low: np.ndarray, high: np.ndarray, sizes: list[int], unit: str
) -> list[dict]:
    numbers = zip(keys, value.tolist(), low.tolist(), high.tolist(), sizes, strict=True)
    return [
        {**key, "statistic": name, "value": v, "ci_low": lo, "ci_high": hi, "n": n, "unit": unit}
        for key, v, lo, hi, n in numbers
    ]
