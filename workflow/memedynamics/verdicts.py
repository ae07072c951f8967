"""The questions of `summary` in words: what was claimed, the numbers by seed, and what the data says."""

from itertools import groupby
from typing import NamedTuple

import polars as pl

from memedynamics import figures
from memedynamics.questions import QUESTIONS
from memedynamics.weighing import ALL_RUNS

WORDS = {"forward_kl": "KL in domain", "forward_kl_out_of_domain": "KL out of domain", "accuracy": "accuracy"}
MEASURES = {"accuracy": "accuracy", "probe_accuracy_gap": "gap", "effective_rank_at_norm": "effective rank"}
MEASURES |= {"matched_entropy": "entropy at equal accuracy", "image_share": "attention on the picture"}
MEASURES |= {"decision_accuracy": "right answers", "accuracy_change": "change of accuracy"}
WORDS |= {"accuracy_gain_out_of_domain": "accuracy gain out of domain", "decision_entropy": "entropy"}

KEYS = ("question", "method", "versus", "measure", "dataset", "split")


class Line(NamedTuple):
    """One claim in words."""

    question: str  # empty where it is that of the line above
    claim: str
    numbers: str
    seeds: str  # whether they agree, and how many there are; empty for a relation
    p: str
    verdict: str
    compared: str  # the two methods; empty for a relation over all runs
    about: str  # what was compared or related, and where


def claims_table(frame: pl.DataFrame) -> list[Line]:
    """A line a claim of `frame`, the table `summary`: by question, relations first, then what is compared."""
    asked = frame.filter(pl.col("question").is_not_null())
    found = []
    for row in sorted(asked.filter(pl.col("statistic") == "p_holm").to_dicts(), key=_place):
        same = [pl.col(key).eq_missing(row[key]) for key in KEYS]
        own = asked.filter(*same, pl.col("statistic").is_in(["difference", "correlation"])).sort("seed")
        numbers = "; ".join(_number(each, row["n"]) for each in own.to_dicts())
        seeds = "; ".join(_agreement(each) for each in asked.filter(*same, statistic="seeds_agree").to_dicts())
        p = "" if row["value"] is None else f"{row['value']:.2g}"
        found.append(Line(row["question"], _who(row), numbers, seeds, p, _said(row), _compared(row), _about(row)))
    lines = []
    for _, same in groupby(found, key=lambda line: line.question):
        first, *others = same
        lines += [first, *(line._replace(question="") for line in others)]
    return lines


def _place(row: dict) -> tuple[int, int]:
    return QUESTIONS.index(row["question"]), list(MEASURES).index(row["measure"]) if row["measure"] else -1


def _who(row: dict) -> str:
    methods = f"{figures.name(row['method'])} − {figures.name(row['versus'])}: "
    return ("" if row["method"] == ALL_RUNS else methods) + _about(row)


def _about(row: dict) -> str:
    if row["method"] != ALL_RUNS:
        where = f", {row['split']}" if row["split"] in ("val", "test") else ""
        return f"{MEASURES[row['measure']]}{where} {row['dataset'] if where else ''}".rstrip()
    x, _, y = row["versus"].partition(", ")
    return f"{WORDS.get(x, x)} with {WORDS.get(y, y)}" + (f" ({row['dataset']})" if "out" in y else "")


def _compared(row: dict) -> str:
    return "" if row["method"] == ALL_RUNS else f"{figures.name(row['method'])} against {figures.name(row['versus'])}"


def _said(row: dict) -> str:
    text = row["verdict"]
    for method in (row["method"], row["versus"]):
        text = text.replace(method, figures.name(method))
    return text


def _agreement(row: dict) -> str:
    if row["value"] is None:
        return f"– ({row['n']})"
    return f"agree ({row['n']})" if row["value"] else f"disagree ({row['n']})"


def _number(row: dict, methods: int) -> str:
    runs = f"ρ of {row['n']} runs, {methods} methods"
    who = runs if row["statistic"] == "correlation" else f"seed {row['seed']}"
    if row["value"] is None:
        return f"{who}: –"
    ends = "" if row["ci_low"] is None else f" [{row['ci_low']:.3g}, {row['ci_high']:.3g}]"
    return f"{who}: {row['value']:+.3g}{ends}"
