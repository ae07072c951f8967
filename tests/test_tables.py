import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memedynamics import schemas, tables
from memedynamics.errors import InputError

ROWS = pl.DataFrame({"step": [1, 2], "metric": ["loss", "loss"], "value": [0.5, 0.25]})


def test_round_trip_with_provenance_and_field_notes(tmp_path, monkeypatch):
    monkeypatch.setitem(tables.provenance, "study", "demo")
    tables.write(ROWS, tmp_path / "history.parquet", "history")
    back = tables.read(tmp_path / "history.parquet", "history")
    assert back.select("step", "metric", "value").equals(ROWS)
    assert back["study"].unique().to_list() == ["demo"]
    schema = pq.read_schema(tmp_path / "history.parquet")
    assert schema.field("step").metadata[b"description"]
    assert tables.source(tmp_path / "history.parquet")["study"] == "demo"


def test_a_table_of_another_study_is_refused_in_a_job_alone(tmp_path, monkeypatch):
    """However it is read: outside a job there is no study to compare with, and a table may carry none."""
    path, unnamed = tmp_path / "history.parquet", tmp_path / "unnamed.parquet"
    tables.write(ROWS, unnamed, "history")
    monkeypatch.setitem(tables.provenance, "study", "old")
    tables.write(ROWS, path, "history")
    assert tables.rows(path, "history") == tables.rows(unnamed, "history") == 2
    monkeypatch.setitem(tables.provenance, "study", "new")
    reads = (tables.read, tables.rows, lambda file, name: tables.read_all([unnamed, file], name))
    for read in reads:
        with pytest.raises(InputError, match=r"history.parquet: belongs to study 'old', not to 'new'; delete it"):
            read(path, "history")
    assert len(tables.read(unnamed, "history")) == 2
    monkeypatch.delitem(tables.provenance, "study")
    assert len(tables.read(path, "history")) == 2


def test_every_field_is_described():
    for name, schema in schemas.SCHEMAS.items():
        for field in schema:
            assert field.metadata[b"description"], f"{name}.{field.name}"


def test_same_rows_same_bytes(tmp_path):
    for name in "ab":
        tables.write(ROWS, tmp_path / f"{name}.parquet", "history")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_nothing_half_written(tmp_path):
    with pytest.raises(RuntimeError), tables.Writer(tmp_path / "history.parquet", "history") as out:
        out.write(ROWS)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (ROWS.drop("value"), "missing column value"),
        (ROWS.with_columns(extra=1), "unknown column extra"),
        (ROWS.with_columns(value=pl.lit(None, pl.Float64)), "column value: 2 empty"),
        (ROWS.with_columns(step=pl.lit("x")), "column step"),
    ],
)
def test_rows_of_another_shape_are_refused(tmp_path, rows, words):
    with pytest.raises(InputError, match=words):
        tables.write(rows, tmp_path / "history.parquet", "history")


def test_unreadable_tables_are_named(tmp_path):
    path = tmp_path / "x.parquet"
    with pytest.raises(InputError, match="x.parquet: no such table"):
        tables.read(path, "history")
    tables.write(ROWS, path, "history")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="x.parquet: not a whole Parquet"):
        tables.read(path, "history")
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(InputError, match="x.parquet: not a 'history' table"):
        tables.read(path, "history")
