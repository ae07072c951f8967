"""How numbers, intervals, seeds and lists of names are written in a sentence."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from memedynamics import figures

MANY_SEEDS = 3  # of more, the range is told, not each
MANY_NAMES = 6  # of more, the others are counted


class Unit(NamedTuple):
    """How a number is written: `pattern` of `scale` × value (empty: three digits), then `name`."""

    name: str = ""
    scale: float = 1.0
    pattern: str = ""

    def write(self, value: float | None) -> str:
        """`value` without the unit's name; a dash where there is none."""
        if value is None:
            return "–"
        text = self.pattern.format(self.scale * value) if self.pattern else digits(self.scale * value)
        return text.replace("-", "−")


PERCENT = Unit(" %", 100, "{:.1f}")
POINTS = Unit(" points", 100, "{:+.1f}")
PLAIN = Unit()
PLURALS = {"token": "tokens", "step": "steps"}


def of(unit: str) -> Unit:
    """A unit as the tables name it, in the plural; 1 has no name."""
    return Unit("" if unit in ("", "1") else f" {PLURALS.get(unit, unit)}")


def digits(value: float) -> str:
    """`value` with three digits that count, whole where it is large."""
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.2g}"
    return f"{value:.3g}"


def listed(items: Sequence[str], many: int = MANY_NAMES) -> str:
    """`items` as one reads them: a, b and c; of more than `many` the others are counted."""
    items = list(items) if len(items) <= many else [*items[: many - 1], f"{len(items) - many + 1} others"]
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def named(methods: Sequence[str]) -> str:
    """`methods` as figures name them, in the order of the figures."""
    return listed([figures.name(method) for method in figures.ordered(methods)])


def interval(row: dict, unit: Unit) -> str:
    """Value, unit and interval of a row."""
    ends = "" if row["ci_low"] is None else f" [{unit.write(row['ci_low'])}, {unit.write(row['ci_high'])}]"
    return f"{unit.write(row['value'])}{unit.name}{ends}"


def values(rows: pl.DataFrame, unit: Unit) -> str:
    """The values of one method's seeds (`rows` have value, ci_low, ci_high, seed), with intervals and seeds."""
    found = rows.drop_nulls("value").sort("seed").to_dicts()
    seeds = [str(row["seed"]) for row in found]
    if len(found) > MANY_SEEDS:
        low, high = (unit.write(end([row["value"] for row in found])) for end in (min, max))
        ends = [row[end] for row in found for end in ("ci_low", "ci_high") if row[end] is not None]
        within = f", all intervals within [{unit.write(min(ends))}, {unit.write(max(ends))}]" if ends else ""
        return f"{low} to {high}{unit.name} ({len(found)} seeds{within})"
    # The unit stands once.
    texts = [interval(row, unit if i == 0 else unit._replace(name="")) for i, row in enumerate(found)]
    return listed(texts) + (f" (seeds {listed(seeds)})" if len(found) > 1 else "")


def counted(rows: pl.DataFrame, what: str = "prompts") -> str:
    """How many items values rest on: n = 50 prompts, or a range."""
    found = rows.drop_nulls("value")["n"]
    if found.is_empty():
        return f"no {what}"
    low, high = found.min(), found.max()
    return f"n = {low:,} {what}" if low == high else f"n = {low:,} to {high:,} {what}"


def place(rows: pl.DataFrame) -> str:
    """Where rows were measured: val of memes."""
    dataset, split = rows.select("dataset", "split").row(0)
    where = {"train-val": "train less val"}.get(split, split)
    return "all data" if dataset == "all" else f"{where} of {dataset}"


def sentence(text: str) -> str:
    """`text` with a capital and a full stop; empty where it is empty."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""
