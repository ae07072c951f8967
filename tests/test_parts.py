import polars as pl
import pyarrow.parquet as pq

from memedynamics import tables
from memedynamics.parts import Parts


def history(step):
    return pl.DataFrame({"step": [step, step], "metric": ["loss", "lr"], "value": [0.5, 0.1]})


def test_parts_survive_and_merge_in_order(tmp_path):
    Parts(tmp_path / "work", "history").write("b", history(2))
    parts = Parts(tmp_path / "work", "history")
    assert parts.done("b") and not parts.done("a")
    parts.write("a", history(1))
    parts.merge(["a", "b"], tmp_path / "history.parquet")
    assert tables.read(tmp_path / "history.parquet", "history")["step"].to_list() == [1, 1, 2, 2]
    assert pq.ParquetFile(tmp_path / "history.parquet").num_row_groups == 2
