"""Tables on the page: what is told once, what is cut, how numbers stand; the files hold everything."""

import polars as pl
import pyarrow as pa
import pytest

from memedynamics import report_tables, schemas, tables

ENDS = "of milestones the runs’ ends alone"


@pytest.fixture
def frame():
    rows = [
        ("sft", seed, fraction, "val", fraction / 3, unit)
        for seed in (1, 2)
        for fraction, unit in ((0.5, "nat"), (1.0, None))
    ]
    found = pl.DataFrame(rows, ["method", "seed", "fraction", "split", "value", "missing"], orient="row")
    kept = {
        "study": "s",
        "step": 4,
        "reference": "base",
        "dataset": "memes",
        "statistic": "length",
        "n": 5,
        "unit": "1",
    }
    found = found.with_columns(**{name: pl.lit(value) for name, value in kept.items()})
    return found.with_columns(ci_low=pl.lit(None, pl.Float64), ci_high=pl.lit(None, pl.Float64))


@pytest.fixture(autouse=True)
def schema(monkeypatch):
    monkeypatch.setitem(schemas.SCHEMAS, "length", schemas.analysis_schema())


def test_columns_that_say_the_same_in_all_rows_are_told_once(frame):
    shown = report_tables.shown(frame, "length")
    assert [column.name for column in shown.columns] == ["seed", "fraction", "value", "missing"]
    assert shown.common | {"dataset": "memes"} == shown.common and "ci_low" not in shown.common
    assert shown.common["method"] == "sft" and shown.common["step"] == "4"


def test_texts_are_places_among_few_and_numbers_are_short(frame):
    seed, fraction, value, missing = report_tables.shown(frame, "length").columns
    assert (missing.values, missing.levels) == ([0, None, 0, None], ["nat"])
    assert value.values == [0.16667, 0.33333] * 2 and value.levels is None
    assert fraction.values == [0.5, 1.0] * 2 and fraction.unit == "1" and "milestone" in fraction.description
    assert seed.values == [1, 1, 2, 2]


def test_milestones_are_not_rounded(frame):
    """The page's filter compares them with the study's."""
    frame = frame.with_columns(fraction=pl.Series([1 / 256, 1 / 3] * 2))
    fraction = next(each for each in report_tables.shown(frame, "length").columns if each.name == "fraction")
    assert fraction.values == [1 / 256, 1 / 3] * 2


def test_a_large_table_without_details_is_shown_at_the_runs_ends(frame, monkeypatch):
    monkeypatch.setattr(report_tables, "MOST", 3)
    shown = report_tables.shown(frame, "length")
    assert (shown.rows, shown.total, shown.part) == (2, 4, [ENDS]) and shown.common["fraction"] == "1"


def test_details_are_cut_first_then_comparisons_and_milestones_last(frame, monkeypatch):
    """Twelve rows; eight of all modules, four without a layer, two that compare nothing, one at the end."""
    keys = [schemas.field("module", schemas.CATEGORY, ""), schemas.field("layer", pa.int16(), "", null=True)]
    versus = schemas.field("versus", schemas.CATEGORY, "", null=True)
    monkeypatch.setitem(schemas.SCHEMAS, "length", schemas.analysis_schema(*keys, versus))
    rows = [
        ("all", None, None),
        ("all", None, "dpo"),
        ("all", 1, None),
        ("all", 1, "dpo"),
        ("q", 1, None),
        ("q", 1, "dpo"),
    ]
    ends = [frame.filter(fraction=fraction, seed=1) for fraction in (0.5, 1.0)]
    parts = [
        end.with_columns(module=pl.lit(m), layer=pl.lit(la, pl.Int16), versus=pl.lit(v, pl.String))
        for end in ends
        for m, la, v in rows
    ]
    whole = pl.concat(parts)
    told = ["module is all", "layer is empty", "versus is empty", ENDS]
    for most, left, said in ((8, 8, 1), (7, 4, 2), (3, 2, 3), (1, 1, 4)):
        monkeypatch.setattr(report_tables, "MOST", most)
        shown = report_tables.shown(whole, "length")
        assert (shown.rows, shown.part) == (left, told[:said])
    monkeypatch.setattr(report_tables, "MOST", 1)
    shown = report_tables.shown(pl.concat([whole, whole]), "length")
    assert (shown.rows, shown.part[-1]) == (1, "the first of these")


def test_the_files_hold_all_of_it(frame, tmp_path):
    tables.write(frame, tmp_path / "length.parquet", "length")
    report_tables.download(tmp_path / "length.parquet", "length", tmp_path / "out")
    assert (tmp_path / "out/length.parquet").read_bytes() == (tmp_path / "length.parquet").read_bytes()
    again = pl.read_csv(tmp_path / "out/length.csv")
    assert again.columns == schemas.SCHEMAS["length"].names
    assert again["value"].to_list() == frame["value"].to_list()
