"""The questions of `summary` in words: what was claimed, the numbers by seed, and what the data says."""

from itertools import groupby
from typing import NamedTuple

import polars as pl

from memedynamics import figures
from memedynamics.questions import ALL_RUNS, QUESTIONS

WORDS = {"forward_kl": "KL in domain", "forward_kl_out_of_domain": "KL out of domain", "accuracy": "accuracy"}
MEASURES = {"accuracy": "accuracy", "probe_accuracy_gap": "gap", "effective_rank_at_norm": "effective rank"}
MEASURES |= {"image_share": "attention on the picture", "accuracy_change": "change of accuracy"}
WORDS |= {"accuracy_gain_out_of_domain": "accuracy gain out of domain", "decision_entropy": "entropy"}

KEYS = ("question", "method", "versus", "measure", "dataset", "split")


class Line(NamedTuple):
    """One claim in words."""

    question: str  # empty where it is that of the line above
    claim: str
    numbers: str
    p: str
    verdict: str
    compared: str  # the two methods; empty for a relation over all runs


def claims_table(frame: pl.DataFrame) -> list[Line]:
    """A line a claim of `frame`, the table `summary`, in the order asked."""
    asked = frame.filter(pl.col("question").is_not_null())
    found = []
    for row in asked.filter(pl.col("statistic") == "p_holm").to_dicts():
        same = [pl.col(key).eq_missing(row[key]) for key in KEYS]
        own = asked.filter(*same, pl.col("statistic").is_in(["difference", "correlation"])).sort("seed")
        numbers = "; ".join(_number(each) for each in own.to_dicts())
        p = "" if row["value"] is None else f"{row['value']:.2g}"
        found.append(Line(row["question"], _who(row), numbers, p, _said(row), _compared(row)))
    found.sort(key=lambda line: QUESTIONS.index(line.question))
    lines = []
    for _, same in groupby(found, key=lambda line: line.question):
        first, *others = same
        lines += [first, *(line._replace(question="") for line in others)]
    return lines


def _who(row: dict) -> str:
    if row["method"] != ALL_RUNS:
        where = f", {row['split']}" if row["split"] in ("val", "test") else ""
        what = f"{MEASURES.get(row['measure'], row['measure'])}{where} {row['dataset'] if where else ''}".rstrip()
        return f"{figures.name(row['method'])} − {figures.name(row['versus'])}: {what}"
    x, _, y = row["versus"].partition(", ")
    return f"{WORDS.get(x, x)} with {WORDS.get(y, y)}" + (f" ({row['dataset']})" if "out" in y else "")


def _compared(row: dict) -> str:
    return "" if row["method"] == ALL_RUNS else f"{figures.name(row['method'])} against {figures.name(row['versus'])}"


def _said(row: dict) -> str:
    text = row["verdict"]
    for method in (row["method"], row["versus"]):
        text = text.replace(method, figures.name(method))
    return text


def _number(row: dict) -> str:
    who = f"ρ, n = {row['n']} runs" if row["statistic"] == "correlation" else f"seed {row['seed']}"
    if row["value"] is None:
        return f"{who}: –"
    ends = "" if row["ci_low"] is None else f" [{row['ci_low']:.3g}, {row['ci_high']:.3g}]"
    return f"{who}: {row['value']:+.3g}{ends}"
