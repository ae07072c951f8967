"""How far a judge agrees with the labels, and how much the order of two responses sways it.

One pair a prompt: the label-based pair (source labels) or one drawn without the label (drawn); n counts prompts.

1. The label prefers the response that is correct and well-formed; of drawn pairs only those where one response alone is
   so have such a better one, and only they enter agreement, AUROC and calibration.
2. `agreement`: share of pairs where the judge prefers the better one over both orders, a tie counting ½; a coin gives
   ½. `agreement_consistent`: among pairs where both orders name the same winner. By `pair_type`, since a badly formed
   response is seen without any understanding of the meme.
3. `auroc`: every pair enters both ways round, so that it is P(p_i > 1 − p_j) with p the judge's P(better): a judge
   whose sure preferences are right more often than its unsure ones is above its agreement.
4. `position_bias`: mean of (P("1" | ab) + P("1" | ba))/2 − ½, how much "1" is preferred whatever stands there: +½ for a
   judge that always says "1". `consistency`: share of pairs where both orders name the same winner (Zheng et al.
   2306.05685 §3.3; Wang et al. 2305.17926).
5. `ece`, `ece_null`: calibration of max(p, 1 − p), with what a calibrated judge would show (`calibration`).
6. `label_mass`: P("1") + P("2"). Where it is near 0 the judge did not understand what it was asked.
7. `paired_share` (drawn): prompts that the labels gave a pair as well. A method that trains on judged pairs sees
   prompts that methods with label-based pairs do not, so the two are not matched in their prompts.
"""

import numpy as np
import polars as pl

from memedynamics import curves, gather, stats
from memedynamics.calibration import bounded_ece, confidence
from memedynamics.curves import Views
from memedynamics.errors import InputError
from memedynamics.gather import MEME
from memedynamics.judgement_pairs import COLUMNS, per_pair
from memedynamics.stats import ratio

TYPES = ("all", "wrong_answer", "bad_format")
NEVER_SURE = "its two orders never named the same winner, so there is no agreement among such pairs"
BINS = 20  # of each order's P(better)

PAIR_STATISTICS: curves.Statistics = {
    "position_bias": ("1", lambda s: ratio(s["bias"], s["present"])),
    "consistency": ("1", lambda s: ratio(s["consistent"], s["present"])),
    "label_mass": ("1", lambda s: ratio(s["mass"], s["present"])),
    "tie_share": ("1", lambda s: ratio(s["tied"], s["present"])),
    "paired_share": ("1", lambda s: ratio(s["paired"], s["present"])),
}
AGREEMENT: curves.Statistics = {
    "agreement": ("1", lambda s: ratio(s["agree"], s["graded"])),
}


def measure(judgements: pl.DataFrame, samples: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> pl.DataFrame:
    """The analysis `judgement`, in its schema (`study` left to the writer).

    `samples`: judgement_pairs.SAMPLES of the base; `prompts` from gather.prompts. Raises InputError where a judged
    response or meme is missing from them.
    """
    pairs = per_pair(judgements, samples)
    if lost := pairs.join(prompts, MEME, "anti")["id"].unique().sort().to_list():
        raise InputError(f"data: no row for {len(lost)} judged memes ({lost[0]} is the first); judge them anew")
    rows: list[dict] = []
    for _, part in sorted(pairs.group_by("probe_kind")):
        rows += _source(part, prompts, resamples)
    return gather.finish(pl.DataFrame(rows, infer_schema_length=None), gather.milestones([]))


def _source(pairs: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> list[dict]:
    memes, (curve,), views = curves.place(pairs, prompts, COLUMNS)
    cluster, weights = curves.resampling(memes, resamples)
    types = memes.join(pairs.select(*MEME, "pair_type"), MEME, "left", maintain_order="left")["pair_type"]
    kinds = types.fill_null("neither").to_numpy()
    better = kinds != "neither"
    sure = better & (views.values[:, 0, COLUMNS.index("consistent")] > 0)
    pairs_of, better_of, sure_of = (_masks(views, kinds, among) for among in (np.ones_like(better), better, sure))
    estimates = curves.evaluate(views, COLUMNS, PAIR_STATISTICS | AGREEMENT, cluster, weights)
    source = curve.pop("probe_kind")
    where = {"dataset": memes["dataset"][0], "split": memes["split"][0], "source": source, **curve}
    where |= {"p_better_first": None, "p_better_second": None, "missing": None}
    of_pairs = {name: estimates[name] for name in PAIR_STATISTICS if (name, source) != ("paired_share", "labels")}
    agreement = {"agreement": estimates["agreement"]}
    rows = _rows(where, views, pairs_of, of_pairs) + _rows(where, views, better_of, agreement)
    rows += _rows(where, views, sure_of, {"agreement_consistent": estimates["agreement"]})
    rows += [_never_sure({**where, "pair_type": name}) for name in better_of if name not in sure_of]
    for name, view in better_of.items():
        rows += _probabilities({**where, "pair_type": name}, views, view, cluster, weights)
    return rows + _orders({**where, "pair_type": "all"}, pairs.filter(pl.col("graded") > 0))


def _rows(where: dict, views: Views, of_type: dict[str, int], estimates: dict[str, curves.Estimate]) -> list[dict]:
    keys = [{**where, "pair_type": name} for name in of_type]
    return curves.level_rows(keys, views, list(of_type.values()), estimates)


def _never_sure(key: dict) -> dict:
    empty = {"value": None, "ci_low": None, "ci_high": None, "n": 0, "unit": "1"}
    return {**key, **empty, "statistic": "agreement_consistent", "missing": NEVER_SURE}


def _masks(views: Views, kinds: np.ndarray, among: np.ndarray) -> dict[str, int]:
    """The view of each of TYPES that occurs `among` (n,) the prompts, whose pairs are of `kinds` (n,)."""
    masks = {name: among & ((kinds == name) | (name == "all")) for name in TYPES}
    return {name: views.add(0, mask) for name, mask in masks.items() if mask.any()}


def _probabilities(key: dict, views: Views, view: int, cluster: np.ndarray, weights: np.ndarray) -> list[dict]:
    """AUROC and calibration of P(better) over the pairs of a view."""
    mask = views.masks[view]
    p, agree = (views.values[mask, 0, COLUMNS.index(name)] for name in ("p", "agree"))
    drawn = weights[:, cluster[mask]]
    area, areas = auroc(p)[0], auroc(p, drawn)
    found = bounded_ece(confidence(p), agree, drawn)
    estimates = {
        "auroc": (area, *stats.interval(areas)),
        "ece": found[:3],
        "ece_null": (found.null.mean(), *stats.interval(found.null)),
    }
    return [
        {**key, "statistic": name, "n": int(mask.sum()), "unit": "1"}
        | dict(zip(("value", "ci_low", "ci_high"), map(float, estimate), strict=True))
        for name, estimate in estimates.items()
    ]


def auroc(p: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """AUROC of P(better) `p` (n,), every pair both ways round: one a row of `weights` (R, n), without them one."""
    labels = np.repeat([1, 0], len(p))
    twice = None if weights is None else np.hstack([weights, weights])
    return stats.auroc(np.concatenate([p, 1 - p]), labels, twice)


def _orders(key: dict, graded: pl.DataFrame) -> list[dict]:
    """Share of pairs in each bin of P(better) in the two orders."""
    orders = ("p_better_first", "p_better_second")
    # Rounded: equal bins are to have equal numbers.
    middle = [(((pl.col(name) * BINS).floor().clip(0, BINS - 1) + 0.5) / BINS).round(6) for name in orders]
    counts = graded.group_by(*middle).len().sort(orders)
    empty = {"ci_low": None, "ci_high": None}
    return [
        {**key, **empty, "p_better_first": first, "p_better_second": second, "statistic": "order_share"}
        | {"value": count / len(graded), "n": len(graded), "unit": "1"}
        for first, second, count in counts.rows()
    ]
