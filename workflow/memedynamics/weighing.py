"""What the analyses' tables hold for and against a claim: differences by seed, their clusters, whether seeds agree.

Relations take every run of the methods they are asked of; claims take the runs of two methods, paired at equal seed.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import polars as pl

from memedynamics import claims, stats
from memedynamics.cells import COLUMNS, END, TABLE, Cell, Tables, pick
from memedynamics.claims import Difference, Evidence

ALL_RUNS = "all runs"


class Claim(NamedTuple):
    """`first` differs from `second` in `cell`; `answers` say what a positive and a negative difference mean."""

    question: str
    cell: Cell
    first: str
    second: str
    answers: tuple[str, str]


class Relation(NamedTuple):
    """Two numbers of every run; `answers` as in Claim, for the sign of their correlation."""

    question: str
    x: str
    y: str
    answers: tuple[str, str]


class Judged(NamedTuple):
    """A claim or relation with its evidence and rows; `key` is what its row p_holm shares with them, `n` its n."""

    key: dict
    evidence: Evidence
    rows: list[dict]
    answers: tuple[str, str]
    n: int


def clusters(tables: Tables, prompts: pl.DataFrame) -> dict[tuple[str, str], float]:
    """Clusters an item, by dataset and split: captions a meme; and for the weights, ("all", "all"), layers in all."""
    found = {}
    for (dataset,), memes in prompts.partition_by("dataset", as_dict=True).items():
        splits = {split: [split] for split in memes["split"].unique()} | {"train-val": ["train", "val"]}
        for name, parts in splits.items():
            texts = memes.filter(pl.col("split").is_in(parts))["text"]
            found[dataset, name] = (int(stats.clusters(texts).max()) + 1) / len(texts) if len(texts) else 0.0
    if "spectrum" in tables:
        found["all", "all"] = float(tables["spectrum"]["layer"].drop_nulls().n_unique())
    return found


def weighed(
    tables: Tables, claim: Claim, shares: Mapping[tuple[str, str], float], runs: pl.DataFrame, in_domain: str
) -> Iterator[Judged]:
    """`claim` judged on every dataset that its number was measured on; undecided where its analysis is missing."""
    key = {"question": claim.question, "method": claim.first, "versus": claim.second, "fraction": 1.0, "seed": None}
    key["measure"] = claim.cell.statistic
    if claim.cell.analysis not in tables:
        where = {"dataset": in_domain, "split": claim.cell.place}
        yield Judged({**key, **where}, Evidence(float("nan"), 0), [], claim.answers, 0)
        return
    seeds = [set(runs.filter(pl.col("method") == method)["seed"]) for method in (claim.first, claim.second)]
    common = sorted(seeds[0] & seeds[1])
    levels = pick(tables, claim.cell, in_domain).drop_nulls("value")
    differences = _differences(tables, claim, in_domain)
    places = {*levels.select("dataset", "split").rows(), *((row["dataset"], row["split"]) for row in differences)}
    for dataset, split in sorted(places):
        where = {**key, "dataset": dataset, "split": split}
        here = [row for row in differences if (row["dataset"], row["split"]) == (dataset, split)]
        rows = [{**row, **key, "seed": row["seed"]} for row in here]
        there = levels.filter(dataset=dataset, split=split)
        values = [there.filter(method=method)["value"].to_list() for method in (claim.first, claim.second)]
        paired = {row["seed"]: _difference(row, shares.get((dataset, split), 0.0)) for row in rows}
        found = claims.evidence([paired.get(seed) for seed in common], *values)
        yield Judged(where, found, [*rows, _agreement(where, found, len(common))], claim.answers, len(common))


def _differences(tables: Tables, claim: Claim, in_domain: str) -> list[dict]:
    """The analysis' own paired differences as rows, first minus second, whichever way it wrote them."""
    cell = claim.cell._replace(statistic=f"{claim.cell.statistic}_difference")
    found = []
    for one, other in ((claim.first, claim.second), (claim.second, claim.first)):
        rows = pick(tables, cell._replace(keys={**cell.keys, "versus": other}), in_domain)
        for row in rows.filter(pl.col("method") == one).sort("seed").select(COLUMNS).to_dicts():
            found.append({**(row if one == claim.first else _turned(row)), "statistic": "difference"})
    return found


def _turned(row: dict) -> dict:
    value, low, high = (None if row[end] is None else 0.0 - row[end] for end in END)
    return {**row, "value": value, "ci_low": high, "ci_high": low}


def _difference(row: dict, share: float) -> Difference | None:
    """`row` with the clusters its interval rests on; None where it has no value or no interval."""
    numbers = [row[end] for end in END]
    if None in numbers:
        return None
    return Difference(*numbers, round(share if row["dataset"] == "all" else share * row["n"]))


def _agreement(where: dict, found: Evidence, seeds: int) -> dict:
    value = None if found.agree is None else float(found.agree)
    missing = None if value is not None else "there are no two seeds with a difference to compare"
    return {**where, **END, "statistic": "seeds_agree", "value": value, "n": seeds, "unit": "1", "missing": missing}


def related(tables: Tables, relation: Relation, in_domain: str, methods: list[str]) -> Iterator[Judged]:
    """The relation over the runs of `methods`, on every dataset that its second number was measured on."""
    numbers = (pick(tables, TABLE[name], in_domain) for name in (relation.x, relation.y))
    x, y = (rows.filter(pl.col("method").is_in(methods)) for rows in numbers)
    if x.is_empty() or y.is_empty():
        return
    for (dataset,), there in y.sort("dataset").partition_by("dataset", as_dict=True, maintain_order=True).items():
        both = x.join(there, on=["method", "seed"], suffix="_y").drop_nulls(["value", "value_y"]).sort("method", "seed")
        found = claims.relation(*(both[name].to_list() for name in ("value", "value_y", "method")))
        key = {"question": relation.question, "method": ALL_RUNS, "versus": f"{relation.x}, {relation.y}", "seed": None}
        key |= {"fraction": 1.0, "dataset": dataset, "split": there["split"][0]}
        row = {**key, "statistic": "correlation", "value": found.rho, "ci_low": found.low, "ci_high": found.high}
        yield Judged(key, found.evidence, [{**row, "n": found.n, "unit": "1"}], relation.answers, found.methods)
