"""What an analysis refuses to reduce: tables of another schema or study, empty, cut short, or with NaN."""

import math

import polars as pl
import pytest

from memedynamics import gather, tables
from memedynamics.errors import InputError

COLUMNS = ["id", "logp", "p_hateful"]


def responses(**changed):
    row = {
        "study": "s", "fraction": 1.0, "probe_kind": "base_sample", "dataset": "d", "split": "val", "id": "a",
        "sample": 0, "logp": -1.0, "ref_logp": -1.0, "kl_forward": 0.0, "kl_reverse": 0.0, "p_hateful": 0.5,
        "label_mass": 1.0, "ref_p_hateful": 0.5, "forced": False, "num_tokens": 3,
    }  # fmt: skip
    optional = {f.name: None for f in tables.SCHEMAS["responses"] if f.nullable}
    return pl.DataFrame([row | optional | changed])


def written(folder, frame=None, name="1-of-1", schema="responses"):
    path = folder / f"sft/seed1/{name}.parquet"
    tables.write(responses() if frame is None else frame, path, schema)
    return path


def test_frames_are_labelled_with_their_run(tmp_path):
    written(tmp_path)
    found = gather.frames([tmp_path / "sft/seed1"], "responses", COLUMNS)
    assert found.to_dicts() == [{"id": "a", "logp": -1.0, "p_hateful": 0.5, "method": "sft", "seed": 1}]


def test_a_table_of_another_study_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(tables.provenance, "study", "old")
    path = written(tmp_path)
    assert len(gather.frames([path], "responses", COLUMNS)) == 1
    monkeypatch.setitem(tables.provenance, "study", "new")
    message = r"1-of-1.parquet: belongs to study 'old', not to 'new'"
    with pytest.raises(InputError, match=message):
        gather.frames([path], "responses", COLUMNS)
    with pytest.raises(InputError, match=message):
        gather.scan([path], "responses")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused_with_file_and_column(tmp_path, value):
    path = written(tmp_path, responses(logp=value))
    with pytest.raises(InputError, match=r"1-of-1.parquet, column logp: 1 values are NaN or infinite"):
        gather.frames([path], "responses", COLUMNS)


def test_another_schema_is_refused_with_the_columns_it_lacks(tmp_path):
    frame = pl.DataFrame({"study": "s", "step": 1, "metric": "loss", "value": 1.0})
    path = written(tmp_path, frame, schema="history")
    with pytest.raises(InputError, match=r"1-of-1.parquet: not a 'responses' table, lacks .*logp"):
        gather.frames([path], "responses", COLUMNS)


def test_a_table_cut_short_is_refused(tmp_path):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    for read in (lambda: gather.frames([path], "responses", COLUMNS), lambda: gather.scan([path], "responses")):
        with pytest.raises(InputError, match=r"1-of-1.parquet: not a whole Parquet file"):
            read()


def test_one_empty_shard_is_fine_an_empty_run_is_not(tmp_path):
    empty = written(tmp_path, responses().head(0), "2-of-2")
    with pytest.raises(InputError, match=r"2-of-2.parquet: no rows"):
        gather.frames([empty], "responses", COLUMNS)
    written(tmp_path)
    assert len(gather.frames([tmp_path / "sft/seed1"], "responses", COLUMNS)) == 1
