"""Numbers, seeds and names in sentences."""

import polars as pl
import pytest

from memedynamics import wording
from memedynamics.wording import PERCENT, PLAIN, POINTS, Unit


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (PERCENT, 0.7251, "72.5"),
        (POINTS, -0.031, "−3.1"),
        (POINTS, 0.031, "+3.1"),
        (PLAIN, 0.000123, "0.000123"),
        (PLAIN, 12345.6, "12,346"),
        (PLAIN, 2.8e11, "2.8e+11"),
        (PLAIN, None, "–"),
    ],
)
def test_numbers(unit, value, text):
    assert unit.write(value) == text


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (list("abcdefgh"), "a, b, c, d, e and 3 others"),
    ],
)
def test_lists(items, text):
    assert wording.listed(items) == text


MANY = "0.1 to 0.5 nat (5 seeds, all intervals within [0.05, 0.9])"


def rows(values):
    kept = [{"seed": seed, "value": v, "ci_low": low, "ci_high": high} for seed, (v, low, high) in values.items()]
    schema = {"seed": pl.Int32, "value": pl.Float64, "ci_low": pl.Float64, "ci_high": pl.Float64}
    return pl.DataFrame(kept, schema=schema)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({1: (0.5, 0.4, 0.6)}, "0.5 nat [0.4, 0.6]"),
        ({2: (0.5, 0.4, 0.6), 1: (0.3, 0.2, 0.4)}, "0.3 nat [0.2, 0.4] and 0.5 [0.4, 0.6] (seeds 1 and 2)"),
        ({1: (0.5, None, None), 2: (None, None, None)}, "0.5 nat"),
        ({seed: (seed / 10, 0.05, 0.9) for seed in range(1, 6)}, MANY),
    ],
)  # fmt: skip
def test_values_of_seeds(values, text):
    assert wording.values(rows(values), Unit(" nat")) == text


def test_units_of_tables_stand_in_the_plural():
    assert [wording.of(unit).name for unit in ("1", "", "nat", "token")] == ["", "", " nat", " tokens"]
