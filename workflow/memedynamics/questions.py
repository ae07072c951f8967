"""The study's questions: which claims each one is, what they rest on, and what this data says.

1. Of each claim one row a seed with the paired `difference`, and one row without a seed, `p_holm`, with the verdict
   (`claims`); all claims of a study are one Holm family. Relations across runs: `correlation`, n = runs, method
   "all runs".
2. A question is asked of the first method of each kind in the study file: kinds without a method are left out.
3. Gaps between train and val are differences of different prompts, so two methods' gaps are compared as if they were
   independent: their prompts are the same, so the interval is, if anything, too wide.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import polars as pl

from memedynamics import claims
from memedynamics.cells import END, LOOK, TABLE, Cell, Tables, pick, table_rows
from memedynamics.claims import Difference
from memedynamics.gather import BASE

ALL_RUNS = "all runs"
COMPARED = ("sft", "dpo", "grpo")  # kinds that every pair of is compared


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


BETTER = "Is GRPO better than DPO?"
GAP = "Why do train and test accuracy agree so well for GRPO: is its gap narrower?"
FEWER = "Does SFT change fewer directions than DPO and GRPO?"
PREDICTS = "Does KL in domain predict the change out of domain?"
SURER = "Is the more accurate model the less entropic one?"
LEANS = "Which method leans on the picture?"
NOISE = "Which method stays right under noise?"
QUESTIONS = (BETTER, GAP, FEWER, PREDICTS, SURER, LEANS, NOISE)
BESIDE = {GAP: ("train_val_gap", "overfit_index"), FEWER: ("effective_rank_at_norm",)}
RELATIONS = (
    Relation(PREDICTS, "forward_kl", "forward_kl_out_of_domain", ("yes", "no: the reverse")),
    Relation(
        PREDICTS, "forward_kl", "accuracy_gain_out_of_domain", ("yes: more KL, more gain", "yes: more KL, less gain")
    ),
    Relation(SURER, "accuracy", "decision_entropy", ("no: the reverse", "yes")),
)


def asked(kinds: Mapping[str, str], noise: str | None) -> list[Claim]:
    """The claims of a study with methods of `kinds`, in order; `noise`: its strongest perturbation by noise."""
    first = {kind: method for method, kind in reversed(list(kinds.items()))}
    found = _pairs(first, BETTER, TABLE["accuracy"], [("grpo", "dpo")], ("yes", "no: DPO is better"))
    gap = [("grpo", "sft"), ("grpo", "dpo")]
    found += _pairs(first, GAP, TABLE["train_val_gap"], gap, ("no: it is wider", "yes"))
    directions = [("sft", "dpo"), ("sft", "grpo")]
    found += _pairs(first, FEWER, TABLE["effective_rank_at_norm"], directions, ("no: more", "yes"))
    every = list(combinations(COMPARED, 2))
    found += _pairs(first, LEANS, TABLE["image_attention"], every)
    if noise:
        keys = {**LOOK, "perturbation": noise, "head": None, "after": "redrawn"}
        found += _pairs(first, NOISE, Cell("attention", "decision_accuracy", "test", {**keys, "versus": None}), every)
    return found


def _pairs(
    first: Mapping[str, str],
    question: str,
    cell: Cell,
    pairs: Sequence[tuple[str, str]],
    answers: tuple[str, str] | None = None,
) -> list[Claim]:
    named = [(first[a], first[b]) for a, b in pairs if a in first and b in first]
    return [Claim(question, cell, a, b, answers or (a, b)) for a, b in named]


def answer_rows(tables: Tables, kinds: Mapping[str, str], in_domain: str) -> list[dict]:
    """The questions: differences by seed, correlations, what stands beside them, and verdicts under one Holm family."""
    asked_claims = asked(kinds, _strongest(tables))
    judged = [(claim, *_weighed(tables, claim, in_domain)) for claim in asked_claims]
    related = [found for each in RELATIONS for found in _related(tables, each, in_domain)]
    evidence = [found for _, found, _ in judged] + [found for _, found, _ in related]
    answers = [claim.answers for claim, *_ in judged] + [each.answers for each, *_ in related]
    p, said = claims.verdicts(evidence, answers)
    rows = []
    for (_, found, own), adjusted, verdict in zip([*judged, *related], p, said, strict=True):
        key = {name: own[0][name] for name in ("question", "method", "versus", "fraction", "dataset", "split")}
        rows += [row for row in own if row["statistic"] != "asked"]
        count = own[0]["n"] if key["method"] == ALL_RUNS else found.seeds
        rows.append(
            {**key, **END, "statistic": "p_holm", "value": adjusted, "n": count, "unit": "1", "verdict": verdict}
        )
    return rows + _beside(tables, in_domain)


def _strongest(tables: Tables) -> str | None:
    attention = tables.get("attention")
    names = [] if attention is None else attention["perturbation"].drop_nulls().unique().to_list()
    levels = [int(name.removeprefix("noise_")) for name in names if name.startswith("noise_")]
    return f"noise_{max(levels)}" if levels else None


def _weighed(tables: Tables, claim: Claim, in_domain: str) -> tuple[claims.Evidence, list[dict]]:
    level = pick(tables, claim.cell, in_domain).drop_nulls("value") if claim.cell.analysis in tables else None
    key = {"question": claim.question, "method": claim.first, "versus": claim.second, "fraction": 1.0, "seed": None}
    key |= {"dataset": in_domain, "split": claim.cell.place}
    if level is None:
        return claims.Evidence(float("nan"), 0, 0), [{**key, "statistic": "asked", "n": 0}]
    ours, theirs = (level.filter(pl.col("method") == method) for method in (claim.first, claim.second))
    paired = _paired(tables, claim, in_domain) or _apart(ours, theirs)
    rows = [
        {**key, "seed": seed, "statistic": "difference", "value": d.value, "ci_low": d.low, "ci_high": d.high}
        | {"n": int(ours.filter(pl.col("seed") == seed)["n"][0]), "unit": ours["unit"][0]}
        for seed, d in paired.items()
    ]
    found = claims.evidence(list(paired.values()), ours["value"].to_list(), theirs["value"].to_list())
    return found, rows or [{**key, "statistic": "asked", "n": 0}]


def _paired(tables: Tables, claim: Claim, in_domain: str) -> dict[int, Difference]:
    """The analysis' own paired differences by seed, first minus second, whichever way it wrote them."""
    cell = claim.cell._replace(statistic=f"{claim.cell.statistic}_difference")
    found: dict[int, Difference] = {}
    for one, other, sign in ((claim.first, claim.second, 1), (claim.second, claim.first, -1)):
        rows = pick(tables, cell._replace(keys={**cell.keys, "versus": other}), in_domain)
        for row in rows.filter(pl.col("method") == one).drop_nulls("value").to_dicts():
            low, high = sorted(sign * row[end] for end in ("ci_low", "ci_high"))
            found[row["seed"]] = Difference(sign * row["value"], low, high)
    return found


def _apart(ours: pl.DataFrame, theirs: pl.DataFrame) -> dict[int, Difference]:
    """Differences at equal seed as if the two were independent: half-widths add as squares."""
    both = ours.join(theirs, on="seed", suffix="_other").drop_nulls(["ci_low", "ci_low_other"]).to_dicts()
    found = {}
    for row in both:
        value = row["value"] - row["value_other"]
        below = ((row["value"] - row["ci_low"]) ** 2 + (row["ci_high_other"] - row["value_other"]) ** 2) ** 0.5
        above = ((row["ci_high"] - row["value"]) ** 2 + (row["value_other"] - row["ci_low_other"]) ** 2) ** 0.5
        found[row["seed"]] = Difference(value, value - below, value + above)
    return found


def _related(tables: Tables, relation: Relation, in_domain: str) -> list[tuple[Relation, claims.Evidence, list[dict]]]:
    """The relation on every dataset that its second number was measured on."""
    x, y = (pick(tables, TABLE[name], in_domain).filter(pl.col("method") != BASE) for name in (relation.x, relation.y))
    if x.is_empty() or y.is_empty():
        return []
    found = []
    for (dataset,), there in y.sort("dataset").partition_by("dataset", as_dict=True, maintain_order=True).items():
        both = x.join(there, on=["method", "seed"], suffix="_y").drop_nulls(["value", "value_y"]).sort("method", "seed")
        rho = claims.relation(both["value"].to_list(), both["value_y"].to_list())
        sign = 0 if rho.rho != rho.rho else int(rho.rho > 0) - int(rho.rho < 0)
        key = {"question": relation.question, "method": ALL_RUNS, "versus": f"{relation.x}, {relation.y}", "seed": None}
        key |= {"fraction": 1.0, "dataset": dataset, "split": there["split"][0], "n": rho.n, "unit": "1"}
        row = {**key, "statistic": "correlation", "value": rho.rho, "ci_low": rho.low, "ci_high": rho.high}
        found.append((relation, claims.Evidence(rho.p, sign, rho.n), [row]))
    return found


def _beside(tables: Tables, in_domain: str) -> list[dict]:
    rows = {name: [row for row in table_rows(tables, in_domain) if row["statistic"] == name] for name in TABLE}
    return [{**row, "question": question} for question, names in BESIDE.items() for name in names for row in rows[name]]
