"""Disks that are full or read-only, as each library words it, end in one line with the path."""

import errno
import os
import subprocess

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from memedynamics import checksums, disk, failures, outside, tables
from memedynamics.errors import InputError

SIZE = 2 << 20  # bytes


@pytest.fixture
def small(tmp_path):
    """A folder on a disk of two mebibytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder]).returncode:
        assert not os.environ.get("CI"), "CI must be allowed to mount a tmpfs"
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


BIG = torch.rand(SIZE // 4 + 100)
WRITERS = {
    "python": lambda path: path.write_bytes(bytes(2 * SIZE)),
    "json": lambda path: checksums.write_json(path, {"words": "word " * SIZE}),
    "parquet": lambda path: tables.write(
        pl.DataFrame({"step": range(len(BIG)), "metric": "loss", "value": BIG.double().numpy()}), path, "history"
    ),
    "safetensors": lambda path: save_file({"a": BIG}, path),
    "torch": lambda path: torch.save(BIG, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_in_one_line(name, small):
    with pytest.raises(Exception) as caught:
        WRITERS[name](small / "file.parquet")
    told = disk.explained(caught.value, small)
    assert told and "\n" not in told and str(small) in told
    assert "no space left on device; make room there and run again" in told


def test_nothing_of_a_table_is_left_on_a_full_disk(small):
    with pytest.raises(OSError, match="No space left"):
        WRITERS["parquet"](small / "file.parquet")
    assert list(small.iterdir()) == []
    assert disk.full(small) is None


def test_a_table_whose_last_bytes_find_no_room(small):
    """What little there is goes to the disk when it is closed."""
    (small / "fill").write_bytes(bytes(SIZE))
    with pytest.raises(OSError, match="No space left"):
        tables.write(pl.DataFrame({"step": [1], "metric": ["loss"], "value": [0.5]}), small / "file.parquet", "history")
    assert [file.name for file in small.iterdir()] == ["fill"]


def test_a_log_that_could_not_be_written_either(small, capsys):
    (small / "fill").write_bytes(bytes(SIZE - 4096))
    (small / "job.log").touch()
    (small / "run.log").write_text(f"Command 'x > {small}/job.log 2>&1' returned non-zero exit status 1.\n")
    failures.print_failures([str(small / "run.log")])
    assert capsys.readouterr().err.endswith(
        f"job.log:\n{small}: no space left on device; make room there and run again\n"
    )


def test_where_nothing_can_be_written(small):
    assert disk.unwritable(small / "results/study") is None
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    expected = f"{small}: read-only file system; make it writable or link it to another disk, and run again"
    assert disk.unwritable(small / "results/study") == expected
    with pytest.raises(OSError) as caught:
        (small / "file").touch()
    assert disk.explained(caught.value, small) == expected.replace(str(small), f"{small}/file")


def test_other_errors_are_left_alone(tmp_path):
    assert disk.explained(ValueError("a number"), tmp_path) is None
    assert disk.explained(FileNotFoundError(errno.ENOENT, "No such file", "x"), tmp_path) is None


def test_an_input_from_the_future_is_named(tmp_path):
    file = tmp_path / "train.csv"
    file.touch()
    outside.refuse_future([file, tmp_path / "missing"])
    os.utime(file, (file.stat().st_mtime + 3600,) * 2)
    with pytest.raises(InputError, match=r"train.csv: its time, \d{4}-\d\d-\d\d .*, lies ahead of the clock"):
        outside.refuse_future([file])


def test_contents_count_whatever_the_times(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text("one")
    first = outside.contents([file])
    os.utime(file, (1, 1))
    assert outside.contents([file]) == first
    file.write_text("two")
    assert outside.contents([file]) != first


def test_a_folder_goes_at_once(tmp_path, monkeypatch):
    """A kill while its files are taken away leaves nothing under its name."""
    folder = tmp_path / "work"
    (folder / "checkpoint-2").mkdir(parents=True)
    with monkeypatch.context() as killed:
        killed.setattr(disk.shutil, "rmtree", lambda *_, **__: None)
        disk.discard(folder, tmp_path / "trash")
    assert not folder.exists() and len(list(tmp_path.rglob("checkpoint-2"))) == 1
    folder.mkdir()
    for _ in range(2):  # the second time there is nothing
        disk.discard(folder, tmp_path / "trash")
    assert not folder.exists() and len(list((tmp_path / "trash").iterdir())) == 1


def test_a_folder_that_cannot_go_stays(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "trash").write_text("is a file")
    disk.discard(tmp_path / "work", tmp_path / "trash")
    assert (tmp_path / "work").exists()


def test_a_link_where_the_file_system_has_links(tmp_path, monkeypatch):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("x")
    disk.link(str(source), str(target))
    assert source.samefile(target)
    monkeypatch.setattr(disk.os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    disk.link(str(source), str(tmp_path / "c"))
    assert (tmp_path / "c").read_text() == "x" and not source.samefile(tmp_path / "c")
