"""Whatever byte of an artefact changes after it was written, the job that would read it refuses."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from memedynamics import checksums, spectrum_bases, tables
from memedynamics.errors import InputError
from memedynamics.parts import Parts

ROWS = pl.DataFrame({"step": range(400), "metric": "loss", "value": np.random.default_rng(0).random(400)})


def table(folder: Path) -> Path:
    tables.write(ROWS, folder / "history.parquet", "history")
    return folder / "history.parquet"


def report(folder: Path) -> Path:
    checksums.write_json(folder / "run.json", {"kind": "adapter", "steps": {"0": 0, "1": 4}})
    return folder / "run.json"


def bases(folder: Path) -> Path:
    spectrum_bases.write({"update/left/q_proj": np.arange(600, dtype=np.float16)}, folder / "bases.safetensors")
    return folder / "bases.safetensors"


def weights(folder: Path) -> Path:
    (folder / "milestones/1").mkdir(parents=True)
    save_file({"a": torch.arange(300.0)}, folder / "milestones/1/adapter_model.safetensors")
    (folder / "milestones/1/adapter_config.json").write_text('{"r": 4}')
    checksums.seal_folder(folder / "milestones/1")
    return folder / "milestones/1/adapter_model.safetensors"


def flip(file: Path, byte: int) -> None:
    content = bytearray(file.read_bytes())
    content[byte] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize("make", [table, report, bases, weights])
def test_no_byte_changes_unseen(make, tmp_path):
    file = make(tmp_path)
    whole = file.read_bytes()
    artefact = tmp_path if make is weights else file
    checksums.check_inputs([artefact])
    for byte in range(0, len(whole), max(1, len(whole) // 211)):
        flip(file, byte)
        with pytest.raises(InputError, match=rf"{file.name}: changed after it was written, .*; delete {artefact} and"):
            checksums.check_inputs([artefact])
        file.write_bytes(whole)
    for content in (whole[:-1], whole[: len(whole) // 2], b"", whole + b"\0"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=rf"{file.name}: changed after it was written, or is cut short"):
            checksums.check_inputs([artefact])
    file.write_bytes(whole)
    checksums.check_inputs([artefact])


def test_what_carries_a_checksum_reads_as_before(tmp_path):
    assert tables.read(table(tmp_path), "history").drop("study").equals(ROWS)
    assert pl.scan_parquet(tmp_path / "history.parquet").select("value").collect().equals(ROWS.select("value"))
    assert checksums.DIGITS.search(pq.read_metadata(tmp_path / "history.parquet").metadata[b"memedynamics"])
    assert json.loads(report(tmp_path).read_text())["steps"] == {"0": 0, "1": 4}
    found = spectrum_bases.read(bases(tmp_path), "update", "left", "q_proj")
    assert found.tolist() == list(range(600))


def test_a_file_missing_from_a_folder_of_weights(tmp_path):
    weights(tmp_path).unlink()
    with pytest.raises(InputError, match=r"adapter_model.safetensors: is missing; delete .*milestones and run again"):
        checksums.check_inputs([tmp_path / "milestones"])


def test_weights_that_are_linked_are_to_be_put_back(tmp_path):
    (tmp_path / "model").mkdir()
    origin = tmp_path / "origin.safetensors"
    save_file({"a": torch.arange(300.0)}, origin)
    (tmp_path / "model/model.safetensors").symlink_to(origin)
    checksums.seal_folder(tmp_path / "model")
    checksums.check_inputs([tmp_path / "model"])
    flip(origin, 900)
    with pytest.raises(InputError, match=rf"model.safetensors: {origin} changed since the study began; put it back"):
        checksums.check_inputs([tmp_path / "model"])


def test_a_table_without_a_checksum_is_refused(tmp_path):
    ROWS.write_parquet(tmp_path / "theirs.parquet")
    with pytest.raises(InputError, match="theirs.parquet: changed after it was written"):
        checksums.check_inputs([tmp_path / "theirs.parquet"])


def test_a_part_that_changed_is_not_merged(tmp_path):
    parts = Parts(tmp_path / "work", "history")
    parts.write("a", ROWS)
    flip(tmp_path / "work/history/a.parquet", 100)
    with pytest.raises(InputError, match=r"a.parquet: changed after .*; delete .*a.parquet and run again"):
        parts.merge(["a"], tmp_path / "history.parquet")
    assert not (tmp_path / "history.parquet").exists()
