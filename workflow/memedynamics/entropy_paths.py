"""Accuracy and entropy along training and across runs: rows of the analysis `entropy`."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import polars as pl

from memedynamics import curves, stats
from memedynamics.gather import BASE
from memedynamics.relations import correlation_interval, matched, rank_correlation, slope

ALL_RUNS = "all runs"
POINTS = 3  # least number of milestones, the start included, that make a path
FLAT = "its accuracy, or the other method's, never rises above the start's, so that there is none to match"


class Path(NamedTuple):
    """A run's key at its last milestone, and accuracy and entropy along it: (M,), resampled (R, M)."""

    key: dict
    value: tuple[np.ndarray, np.ndarray]
    replicates: tuple[np.ndarray, np.ndarray]


def path_rows(
    keys: list[dict],
    views: curves.Views,
    index: Sequence[int],
    both: dict[str, curves.Estimate],
    runs: pl.DataFrame,
) -> list[dict]:
    """Accuracy and entropy of every milestone on the memes all share, and the relation of the two along each run.

    A run's path starts at its own fraction 0, or at the base where that is what it starts at.

    `both`: Estimates path_entropy and path_accuracy; `keys[i]` describes view `index[i]`. None without such a path.
    """
    paths = _paths(keys, index, both, runs)
    if not paths or not views.size(index[0]):
        return []
    rows = curves.level_rows(keys, views, index, {f"exact/forced///{name}": part for name, part in both.items()})
    for path in paths:
        rows += _relation_rows(path)
    for one, other in combinations(paths, 2):
        if one.key["seed"] == other.key["seed"]:
            rows += _matched_rows(one, other, views.size(index[0]))
    return rows


def run_row(keys: list[dict], index: Sequence[int], both: dict[str, curves.Estimate]) -> list[dict]:
    """Spearman correlation of accuracy and entropy over runs at the end of training; n counts runs, seeds among them.

    Seeds of one method are no independent draws of a method: the interval holds for more runs of this kind only.
    """
    end = max(key["fraction"] for key in keys)
    last = [view for key, view in zip(keys, index, strict=True) if key["method"] != BASE and key["fraction"] == end]
    if len(last) < 2:
        return []
    rho = float(rank_correlation(both["path_accuracy"].value[last], both["path_entropy"].value[last]))
    low, high = correlation_interval(rho, len(last))
    who = {**keys[0], "method": ALL_RUNS, "seed": None, "fraction": end, "probe_kind": "own_sample"}
    return [_row(who, "run_correlation", rho, (low, high), len(last), "1")]


def _paths(keys: list[dict], index: Sequence[int], both: dict[str, curves.Estimate], runs: pl.DataFrame) -> list[Path]:
    elsewhere = set(runs.filter(pl.col("starts_at") != BASE).select("method", "seed").rows())
    start = [i for i, key in enumerate(keys) if key["method"] == BASE]
    found: dict[tuple, list[int]] = {}
    for i in sorted(range(len(keys)), key=lambda i: keys[i]["fraction"]):
        if keys[i]["method"] != BASE:
            found.setdefault((keys[i]["method"], keys[i]["seed"]), []).append(i)
    paths = []
    for run, own in found.items():
        whole = own if run in elsewhere else start + own
        if len(whole) >= POINTS:
            at = [index[i] for i in whole]
            parts = [both[name] for name in ("path_accuracy", "path_entropy")]
            values, drawn = (tuple(part[k][..., at] for part in parts) for k in (0, 1))
            paths.append(Path(keys[own[-1]], values, drawn))
    return paths


def _relation_rows(path: Path) -> list[dict]:
    rows = []
    for name, relation, unit in (("milestone_correlation", rank_correlation, "1"), ("entropy_slope", slope, "nat")):
        value, ends = float(relation(*path.value)), stats.interval(relation(*path.replicates))
        rows.append(_row(path.key, name, value, ends, path.value[0].shape[-1], unit))
    return rows


def _matched_rows(one: Path, other: Path, n: int) -> list[dict]:
    value, drawn = matched(one.value, other.value), matched(one.replicates, other.replicates)
    key = {**one.key, "versus": other.key["method"]}
    numbers = {
        "matched_accuracy": (value.accuracy, drawn.accuracy, "1"),
        "matched_entropy": (value.entropy, drawn.entropy, "nat"),
        "matched_entropy_versus": (value.versus, drawn.versus, "nat"),
        "matched_entropy_difference": (value.entropy - value.versus, drawn.entropy - drawn.versus, "nat"),
    }
    if np.isnan(value.accuracy):
        blank = [_row(key, name, np.nan, (np.nan, np.nan), n, unit) for name, (*_, unit) in numbers.items()]
        return [{**row, "missing": FLAT} for row in blank]
    return [_row(key, name, float(v), stats.interval(r), n, unit) for name, (v, r, unit) in numbers.items()]


def _row(key: dict, statistic: str, value: float, ends: tuple, n: int, unit: str) -> dict:
    low, high = (float(end) for end in ends)
    own = {"statistic": f"exact/forced///{statistic}", "value": value, "ci_low": low, "ci_high": high}
    return {**key, **own, "n": n, "unit": unit}
