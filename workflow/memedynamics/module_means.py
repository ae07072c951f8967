"""Means over modules with intervals over layers, by the machinery that `curves` has for prompts.

A module stands where a prompt would, and its layer where the caption, which makes the cluster.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import polars as pl

from memedynamics import curves
from memedynamics.stats import ratio

ALL = "all"
PLACE = {"dataset": ALL, "split": ALL}


def summarise(
    frame: pl.DataFrame, units: Mapping[str, str], resamples: int, keys: dict, compared: Sequence[str] = ()
) -> list[dict]:
    """Mean over modules of each column in `units`, empty ones left out, with its interval, for every run and update.

    Differences of the `compared` ones between trained methods at equal seed, and seeds of one method, are paired.
    """
    known = {name: f"{name} known" for name in units}
    columns = ["present", *units, *known.values()]
    filled = frame.with_columns(
        *(pl.col(name).is_not_null().cast(pl.Float64).alias(mark) for name, mark in known.items()), present=1.0
    ).with_columns(pl.col(*units).cast(pl.Float64).fill_null(0))
    modules = frame.select("dataset", "split", "id", text=pl.format("layer {}", "layer")).unique().sort("id")
    placed, who, views = curves.place(filled, modules, columns)
    index = [views.add(curve) for curve in range(len(who))]
    pairs = [(a, b) for a, b in combinations(range(len(who)), 2) if _comparable(who[a], who[b])] if compared else []
    seen = [views.pair(*pair) for pair in pairs]
    statistics = {name: (unit, _mean(name, known[name])) for name, unit in units.items()}
    estimates = curves.evaluate(views, columns, statistics, *curves.resampling(placed, resamples))
    level = [{**PLACE, **keys, **curve, "versus": None} for curve in who]
    against = [{**level[a], "versus": versus(who[a], who[b])} for a, b in pairs]
    rows = curves.level_rows(level, views, index, estimates)
    return rows + curves.difference_rows(against, views, seen, {name: estimates[name] for name in compared})


def _mean(name: str, known: str) -> Callable:
    return lambda sums: ratio(sums[name], sums[known])


def _comparable(one: dict, other: dict) -> bool:
    same = [one[name] == other[name] for name in ("method", "seed")]
    trained = one["probe_kind"] == other["probe_kind"] == "trained"
    return trained and one["fraction"] == other["fraction"] and sum(same) == 1


def versus(one: dict, other: dict) -> str:
    """How the other side of a comparison is named: by its seed where the method is the same."""
    return f"seed{other['seed']}" if one["method"] == other["method"] else other["method"]
