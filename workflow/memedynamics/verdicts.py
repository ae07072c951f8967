"""The questions of `summary` in words: what was claimed, the numbers by seed, and what the data says."""

from itertools import groupby
from typing import NamedTuple

import polars as pl

from memedynamics import figures
from memedynamics.questions import ALL_RUNS, QUESTIONS

WORDS = {"forward_kl": "KL in domain", "forward_kl_out_of_domain": "KL out of domain", "accuracy": "accuracy"}
WORDS |= {"accuracy_gain_out_of_domain": "accuracy gain out of domain", "decision_entropy": "entropy"}


class Line(NamedTuple):
    """One claim in words."""

    question: str  # empty where it is that of the line above
    claim: str
    numbers: str
    p: str
    verdict: str


def claims_table(frame: pl.DataFrame) -> list[Line]:
    """A line a claim of `frame`, the table `summary`, in the order asked."""
    asked = frame.filter(pl.col("question").is_not_null())
    found = []
    for row in asked.filter(pl.col("statistic") == "p_holm").to_dicts():
        same = [pl.col(key) == row[key] for key in ("question", "method", "versus", "dataset", "split")]
        own = asked.filter(*same, pl.col("statistic").is_in(["difference", "correlation"])).sort("seed")
        numbers = "; ".join(_number(each) for each in own.to_dicts())
        p = "" if row["value"] is None else f"{row['value']:.2g}"
        found.append(Line(row["question"], _who(row), numbers, p, row["verdict"]))
    found.sort(key=lambda line: QUESTIONS.index(line.question))
    lines = []
    for _, same in groupby(found, key=lambda line: line.question):
        first, *others = same
        lines += [first, *(line._replace(question="") for line in others)]
    return lines


def _who(row: dict) -> str:
    if row["method"] != ALL_RUNS:
        return f"{figures.name(row['method'])} − {figures.name(row['versus'])}"
    x, _, y = row["versus"].partition(", ")
    return f"{WORDS.get(x, x)} with {WORDS.get(y, y)}" + (f" ({row['dataset']})" if "out" in y else "")


def _number(row: dict) -> str:
    who = f"ρ, n = {row['n']} runs" if row["statistic"] == "correlation" else f"seed {row['seed']}"
    if row["value"] is None:
        return f"{who}: –"
    ends = "" if row["ci_low"] is None else f" [{row['ci_low']:.3g}, {row['ci_high']:.3g}]"
    return f"{who}: {row['value']:+.3g}{ends}"
