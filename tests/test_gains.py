"""Accuracy gained per nat: one ratio of means over the same prompts, blank under the noise floor."""

import polars as pl
import pytest

from memedynamics import gains
from memedynamics.errors import InputError

PROMPTS = pl.DataFrame(
    {"dataset": "d", "split": "val", "id": ["a", "b", "c"], "label": [0, 1, 0], "text": ["x", "y", "z"]}
)


def samples():
    """Correct answers of 2: base a 1, b 0, c 1; policy a 2, b 1, c 2. Gains 1/2 each."""
    rows = []
    for method, fraction, right in (("base", 0.0, (1, 0, 1)), ("sft", 1.0, (2, 1, 2)), ("sft", 0.5, (0, 0, 0))):
        for name, count in zip("abc", right, strict=True):
            where = {"method": method, "seed": None if method == "base" else 1, "fraction": fraction}
            rows += [{**where, "dataset": "d", "split": "val", "id": name, "correct": k < count} for k in range(2)]
    return pl.DataFrame(rows, schema_overrides={"seed": pl.Int32})


def responses(kl=(0.5, 1.5)):
    """KL of a and b alone: c was not probed."""
    where = {"method": "sft", "seed": 1, "fraction": 1.0, "probe_kind": "base_sample", "dataset": "d", "split": "val"}
    rows = [{**where, "id": name, "kl_forward": value} for name, value in zip("ab", kl, strict=True)]
    return pl.DataFrame(rows, schema_overrides={"seed": pl.Int32})


def floor(value):
    return pl.DataFrame({"method": ["sft"], "seed": [1], "floor": [value]}, schema_overrides={"seed": pl.Int32})


def kl_row(method, seed, value, **keys):
    common = {"fraction": 1.0, "split": "val", "statistic": "per_response", "span": "all", "estimator": "exact"}
    common |= {"direction": "forward", "versus": None, "ci_high": value}
    return {**common, "method": method, "seed": seed, "value": value, **keys}


def test_floor_is_the_larger_of_code_path_and_seeds():
    """Path 1e-6; between seeds .2 for sft seed 1, one seed for dpo."""
    table = [
        kl_row("base", None, 1e-6, versus="other_path", fraction=0.0),
        kl_row("dpo", 1, 0.5),
        kl_row("sft", 1, 0.5),
    ]
    table += [kl_row("sft", 1, 0.2, direction="between_seeds", estimator="k3_weighted", versus="seed2")]
    found = gains.floors(pl.DataFrame(table, schema_overrides={"seed": pl.Int32})).sort("method")
    assert found["floor"].to_list() == pytest.approx([1e-6, 0.2])
    with pytest.raises(InputError, match="no row of the base through the other code path"):
        gains.floors(pl.DataFrame(table[1:], infer_schema_length=None))


def test_gain_per_nat_by_hand():
    """a and b: gains ½ and ½, KL ½ and 3/2: (1/2) / 1 = ½ per nat; c has no KL and does not count."""
    (row,) = gains.rows(samples(), responses(), PROMPTS, floor(0.1), 500)
    assert row["value"] == pytest.approx(0.5) and row["n"] == 2 and row["unit"] == "1/nat"
    assert row["ci_low"] == pytest.approx(1 / 3) and row["ci_high"] == pytest.approx(1.0)
    assert (row["method"], row["seed"], row["fraction"], row["missing"]) == ("sft", 1, 1.0, None)


def test_numerator_and_denominator_are_resampled_together():
    """Where gain is proportional to KL in every prompt the ratio does not vary."""
    found = gains.per_prompt(samples(), responses()).with_columns(gain=pl.col("kl") * 0.3)
    rows = gains.curves.levels(found, PROMPTS, gains.COLUMNS, gains.STATISTICS, 200)
    (row,) = [row for row in rows if row["statistic"] == "gain_per_nat"]
    assert row["ci_low"] == pytest.approx(0.3) and row["ci_high"] == pytest.approx(0.3)


def test_blank_under_the_floor():
    (row,) = gains.rows(samples(), responses(), PROMPTS, floor(0.6), 500)
    assert row["value"] is None and row["ci_low"] is None and row["missing"] == gains.UNDER_FLOOR
