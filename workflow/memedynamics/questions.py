"""The study's questions: which claims each one is, what they rest on, and what this data says.

1. Of each claim one row a seed with the paired `difference`, and one row without a seed, `p_holm`, with the verdict
   (`claims`); all claims of a study are one Holm family. Relations across runs: `correlation`, n = runs, method
   "all runs".
2. Runs that are made of other runs (curricula, merges) are in no question: they would count their parents twice. A
   question is asked of the first method of each kind as `kinds` has them: those whose objective alone is their own
   come first. Kinds without a method are left out; every answer stands with the names of the two methods.
3. The gap between train and val is that of the decision after the base's own texts, the only ones all policies have on
   train. SFT and DPO were trained on some of these texts, GRPO and EM were not: a wider gap of theirs is in part that.
4. Leaning on the picture: where attention looks, and how many right answers go with the picture. The first alone is no
   evidence that the answer rests on it.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import polars as pl

from memedynamics import claims, stats
from memedynamics.cells import BLANK, END, TABLE, Cell, Tables, perturbed, pick, strongest_noise
from memedynamics.claims import Difference, Evidence

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


class Judged(NamedTuple):
    """A claim or relation with its evidence and rows; `key` is what its row p_holm shares with them, `n` its n."""

    key: dict
    evidence: Evidence
    rows: list[dict]
    answers: tuple[str, str]
    n: int


BETTER = "Is GRPO better than DPO?"
GAP = "Why do train and test accuracy agree so well for GRPO?"
FEWER = "Does SFT change fewer directions than DPO and GRPO?"
PREDICTS = "Does KL in domain predict the change out of domain?"
SURER = "Is the more accurate model the less entropic one?"
LEANS = "Which method leans on the picture?"
NOISE = "Which method stays right under noise?"
QUESTIONS = (BETTER, GAP, FEWER, PREDICTS, SURER, LEANS, NOISE)
BESIDE = {GAP: ("train_val_gap", "overfit_index"), FEWER: ("effective_rank_at_norm",)}
BESIDE |= {LEANS: ("blank_accuracy_change",), NOISE: ("noise_accuracy_change",)}
RELATIONS = (
    Relation(PREDICTS, "forward_kl", "forward_kl_out_of_domain", ("yes", "no: the reverse")),
    Relation(PREDICTS, "forward_kl", "accuracy_gain_out_of_domain", ("more KL, more gain", "more KL, less gain")),
    Relation(SURER, "accuracy", "decision_entropy", ("no: the reverse", "yes")),
)


def asked(kinds: Mapping[str, str], noise: str | None) -> list[Claim]:
    """The claims of a study with methods of `kinds`, in order; `noise`: its strongest perturbation by noise."""
    first = {kind: method for method, kind in reversed(list(kinds.items()))}
    grpo_dpo, every = [("grpo", "dpo")], list(combinations(COMPARED, 2))
    found = []
    for place in ("val", "test", "out"):
        found += _pairs(first, BETTER, TABLE["accuracy"]._replace(place=place), grpo_dpo, ("yes", "no: {b} is"))
    gap = ("{a}’s gap is wider", "{b}’s gap is wider")
    found += _pairs(first, GAP, TABLE["train_val_gap"], [("grpo", "sft"), *grpo_dpo], gap)
    directions = [("sft", "dpo"), ("sft", "grpo")]
    found += _pairs(first, FEWER, TABLE["effective_rank_at_norm"], directions, ("no: more", "yes"))
    found += _pairs(first, LEANS, TABLE["image_attention"], every, ("{a} looks more", "{b} looks more"))
    found += _pairs(first, LEANS, perturbed(BLANK), every, ("{b} loses more", "{a} loses more"))
    if noise:
        found += _pairs(first, NOISE, perturbed(noise), every, ("{a}", "{b}"))
    return found


def _pairs(
    first: Mapping[str, str], question: str, cell: Cell, pairs: Sequence[tuple[str, str]], answers: tuple[str, str]
) -> list[Claim]:
    named = [(first[a], first[b]) for a, b in pairs if a in first and b in first]
    return [Claim(question, cell, a, b, tuple(text.format(a=a, b=b) for text in answers)) for a, b in named]


def answer_rows(
    tables: Tables,
    table: Sequence[dict],
    prompts: pl.DataFrame,
    runs: pl.DataFrame,
    kinds: Mapping[str, str],
    in_domain: str,
) -> list[dict]:
    """The questions: differences by seed, correlations, what stands beside them, and verdicts under one Holm family.

    `table`: cells.table_rows; `prompts` and `runs` from gather.
    """
    judged: list[Judged] = []
    for claim in asked(kinds, strongest_noise(tables)):
        judged += _weighed(tables, claim, clusters(tables, prompts), runs, in_domain)
    for relation in RELATIONS:
        judged += _related(tables, relation, in_domain, list(kinds))
    p, said = claims.verdicts([each.evidence for each in judged], [each.answers for each in judged])
    rows = []
    for each, adjusted, verdict in zip(judged, p, said, strict=True):
        own = {"statistic": "p_holm", "value": adjusted, "n": each.n, "unit": "1", "verdict": verdict}
        rows += [*each.rows, {**each.key, **END, **own}]
    return rows + [
        {**row, "question": question}
        for question, names in BESIDE.items()
        for row in table
        if row["statistic"] in names
    ]


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


def _weighed(
    tables: Tables, claim: Claim, shares: Mapping[tuple[str, str], float], runs: pl.DataFrame, in_domain: str
) -> Iterator[Judged]:
    """`claim` judged on every dataset that its number was measured on; undecided where its analysis is missing."""
    key = {"question": claim.question, "method": claim.first, "versus": claim.second, "fraction": 1.0, "seed": None}
    key["measure"] = claim.cell.statistic
    level = pick(tables, claim.cell, in_domain)
    if claim.cell.analysis not in tables:
        where = {"dataset": in_domain, "split": claim.cell.place}
        yield Judged({**key, **where}, Evidence(float("nan"), 0), [], claim.answers, 0)
        return
    seeds = [set(runs.filter(pl.col("method") == method)["seed"]) for method in (claim.first, claim.second)]
    common = sorted(seeds[0] & seeds[1])
    for (dataset, split), there in (
        level.drop_nulls("value").sort("dataset").group_by("dataset", "split", maintain_order=True)
    ):
        share = shares.get((dataset, split), 0.0)
        paired = _paired(tables, claim, in_domain, dataset, share)
        where = {**key, "dataset": dataset, "split": split}
        rows = [
            {**where, "seed": seed, "statistic": "difference", "value": d.value, "ci_low": d.low, "ci_high": d.high}
            | {"n": n, "unit": there["unit"][0]}
            for seed, (d, n) in sorted(paired.items())
        ]
        values = [there.filter(pl.col("method") == method)["value"].to_list() for method in (claim.first, claim.second)]
        found = claims.evidence([paired[s][0] if s in paired else None for s in common], *values)
        yield Judged(where, found, rows, claim.answers, len(common))


def _paired(
    tables: Tables, claim: Claim, in_domain: str, dataset: str, share: float
) -> dict[int, tuple[Difference, int]]:
    """The analysis' own paired differences with n, by seed, first minus second, whichever way it wrote them."""
    cell = claim.cell._replace(statistic=f"{claim.cell.statistic}_difference")
    found = {}
    for one, other, sign in ((claim.first, claim.second, 1), (claim.second, claim.first, -1)):
        rows = pick(tables, cell._replace(keys={**cell.keys, "versus": other}), in_domain)
        here = rows.filter(pl.col("method") == one, pl.col("dataset") == dataset).drop_nulls(
            ["value", "ci_low", "ci_high"]
        )
        for row in here.to_dicts():
            low, high = sorted(sign * row[end] + 0.0 for end in ("ci_low", "ci_high"))
            count = round(share if dataset == "all" else share * row["n"])
            found[row["seed"]] = Difference(sign * row["value"] + 0.0, low, high, count), row["n"]
    return found


def _related(tables: Tables, relation: Relation, in_domain: str, methods: list[str]) -> Iterator[Judged]:
    """The relation over the runs of `methods`, on every dataset that its second number was measured on."""
    numbers = (pick(tables, TABLE[name], in_domain) for name in (relation.x, relation.y))
    x, y = (rows.filter(pl.col("method").is_in(methods)) for rows in numbers)
    if x.is_empty() or y.is_empty():
        return
    for (dataset,), there in y.sort("dataset").partition_by("dataset", as_dict=True, maintain_order=True).items():
        both = x.join(there, on=["method", "seed"], suffix="_y").drop_nulls(["value", "value_y"]).sort("method", "seed")
        found = claims.relation(*(both[name].to_list() for name in ("value", "value_y", "method")))
        sign = int(found.rho > 0) - int(found.rho < 0)
        key = {"question": relation.question, "method": ALL_RUNS, "versus": f"{relation.x}, {relation.y}", "seed": None}
        key |= {"fraction": 1.0, "dataset": dataset, "split": there["split"][0]}
        row = {**key, "statistic": "correlation", "value": found.rho, "ci_low": found.low, "ci_high": found.high}
        rows = [{**row, "n": found.n, "unit": "1"}]
        yield Judged(key, Evidence(found.p, sign), rows, relation.answers, found.n)
