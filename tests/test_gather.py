"""What an analysis refuses to reduce: tables of another schema or study, empty, cut short, or with NaN."""

import json
import math

import polars as pl
import pytest

from memedynamics import gather, schemas, tables
from memedynamics.errors import InputError

COLUMNS = ["id", "logp", "p_hateful"]


def responses(**changed):
    row = {
        "study": "s", "fraction": 1.0, "probe_kind": "base_sample", "dataset": "d", "split": "val", "id": "a",
        "sample": 0, "logp": -1.0, "ref_logp": -1.0, "kl_forward": 0.0, "kl_reverse": 0.0, "p_hateful": 0.5,
        "label_mass": 1.0, "ref_p_hateful": 0.5, "forced": False, "num_tokens": 3,
    }  # fmt: skip
    optional = {f.name: None for f in schemas.SCHEMAS["responses"] if f.nullable}
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


@pytest.fixture
def runs(tmp_path):
    """sft with milestones 0, 1/3 and 1; one trained elsewhere, which has no steps; one that begins at sft's end."""
    whole, ends = {"steps": {"0": 0, "0.333333": 2, "1": 6}}, {"steps": {"0": 0, "1": None}}
    chained = {"steps": {"0": 0, "1": 6}, "starts_at": "sft", "loss_reference": "base"}
    paths = []
    for name, record in {"sft/seed1": whole, "outside/seed0": ends, "on/seed1": chained}.items():
        paths.append(tmp_path / f"runs/{name}/run.json")
        paths[-1].parent.mkdir(parents=True)
        paths[-1].write_text(json.dumps({"reference": "base", **record}))
    return gather.milestones(paths)


def test_where_runs_start_and_what_their_loss_compared_with(runs):
    """A run.json without a word on it is of a run that starts at the base, and compared with where it starts."""
    origins = {row["method"]: (row["starts_at"], row["loss_reference"]) for row in runs.to_dicts()}
    at_base = dict.fromkeys(("base", "sft", "outside"), ("base", "base"))
    assert origins == {**at_base, "on": ("sft", "base")}


def test_the_start_of_a_run_that_begins_elsewhere_is_its_own(runs):
    """Nobody else scores it, so that it must not go unnoticed where it is lost."""
    rows = [("on", 1, 0.0), ("on", 1, 1.0)]
    assert gather.whole(found(rows), runs, "samples").equals(found(rows))
    with pytest.raises(InputError, match="^samples of on/seed1: none at milestone 0; delete them and run again"):
        gather.whole(found(rows[1:]), runs, "samples")


WHOLE = [("base", None, 0.0), ("sft", 1, 1 / 3), ("sft", 1, 1.0), ("outside", 0, 1.0)]


def found(rows, **columns):
    schema = {"method": pl.String, "seed": pl.Int32, "fraction": pl.Float64}
    return pl.DataFrame(rows, schema, orient="row").with_columns(**columns)


def test_a_table_that_holds_every_milestone_of_its_runs_is_whole(runs):
    """A run's own start is the base's; runs that the table is not about are no gap in it."""
    for rows in (WHOLE, WHOLE[1:], WHOLE[:1], [*WHOLE, ("sft", 1, 0.0)]):
        assert gather.whole(found(rows), runs, "samples").equals(found(rows))


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (1, "samples of sft/seed1: none at milestone 0.333333; delete them and run again"),
        (2, "samples of sft/seed1: none at milestone 1; "),
    ],
)
def test_a_milestone_without_rows_is_named_with_its_run(runs, lost, message):
    with pytest.raises(InputError, match=message):
        gather.whole(found(WHOLE[:lost] + WHOLE[lost + 1 :]), runs, "samples")


def test_the_base_lacks_its_start_and_a_run_its_end(runs):
    with pytest.raises(InputError, match="^samples of base: none at milestone 0; "):
        gather.whole(found([("base", None, 1.0)]), runs, "samples")
    with pytest.raises(InputError, match="^samples of outside/seed0: none at milestone 1; "):
        gather.whole(found([("outside", 0, 0.0)]), runs, "samples")


def test_every_probe_kind_of_a_run_holds_every_milestone(runs):
    """Base samples scored everywhere do not hide own samples that were scored at the end alone."""
    fixed = found(WHOLE, probe_kind=pl.lit("base_sample"))
    own = found(WHOLE[2:], probe_kind=pl.lit("own_sample"))
    with pytest.raises(InputError, match="^responses of sft/seed1 own_sample: none at milestone 0.333333; "):
        gather.whole(pl.concat([fixed, own]), runs, "responses")
