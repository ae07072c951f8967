"""A job's argument reaches `main` by name, and its errors reach the user in one line."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from memedynamics import checkpoints, job, lock, tables

LIBRARY = Path(job.__file__).resolve().parents[1]
SCRIPT = """
from pathlib import Path
from memedynamics.config import Sampling
from memedynamics.errors import InputError
from memedynamics.job import run

def main(data: Path, table: Path, sampling: Sampling, seed: int, threads: int, work: Path) -> None:
    if seed == 13:
        (work / "part").write_text("half")
        raise InputError(f"{data}: row 4: unlucky")
    table.write_text(f"{sampling.num_samples} {seed} {threads} {sorted(p.name for p in work.iterdir())}")

run(main)
"""


@pytest.fixture
def launch(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "in.txt").write_text("one")

    def run(seed="7", digest="d", rank=None, data=str(tmp_path / "in.txt"), umask=-1, told=(), **cfg):
        argument = {
            "rule": "toy",
            "root": str(tmp_path / "results"),
            "study": "s",
            "digest": digest,
            "code": "c",
            "input": {"data": data},
            "output": {"table": str(tmp_path / "out.txt")},
            "wildcards": {"seed": seed},
            "cfg": {"sampling": {"num_samples": 3}, "unused": 1, **cfg},
            "threads": 2,
            "gpu": 0,
            "work": str(tmp_path / "work"),
            "timing": str(tmp_path / "timing.json"),
            **dict(told),
        }
        others = {name: value for name, value in os.environ.items() if name != "RANK"}
        return subprocess.run(
            [sys.executable, "script.py", json.dumps(argument)],
            cwd=tmp_path,
            env={**others, "PYTHONPATH": str(LIBRARY), **({"RANK": rank} if rank else {})},
            capture_output=True,
            text=True,
            umask=umask,
        )

    return run


def test_main_gets_what_it_names(launch, tmp_path):
    assert launch().returncode == 0
    assert (tmp_path / "out.txt").read_text() == "3 7 2 []"
    assert not (tmp_path / "work").exists()


def test_an_input_error_is_one_line_and_a_status(launch, tmp_path):
    done = launch(seed="13")
    assert done.returncode == 1
    assert done.stderr.strip() == f"error: {tmp_path / 'in.txt'}: row 4: unlucky"
    assert not (tmp_path / "out.txt").exists()


def test_work_is_found_again_by_the_same_job_alone(launch, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.replace("if seed == 13", "if not list(work.iterdir())"))
    launch()
    assert launch(digest="other").returncode == 1
    assert launch().returncode == 0
    assert (tmp_path / "out.txt").read_text() == "3 7 2 ['part']"
    launch()
    (tmp_path / "in.txt").write_text("two")
    assert launch().returncode == 1


def test_a_job_that_outlived_its_snakemake_is_waited_for_and_its_result_taken(launch, tmp_path):
    """Two processes of one job: the second begins while the first is at work, and does it again only where it must."""
    work = "(work.parent.parent / 'begun').open('a').write('x'); time.sleep(6); table.write_text"
    (tmp_path / "script.py").write_text("import time\n" + SCRIPT.replace("table.write_text", work))
    for digest, times in (("d", 1), ("other", 2)):
        with ThreadPoolExecutor() as pool:
            first = pool.submit(launch)
            while not (tmp_path / "begun").exists():
                time.sleep(0.05)
            second = pool.submit(launch, digest=digest)
        assert first.result().returncode == second.result().returncode == 0
        assert "waiting for process" in second.result().stderr
        assert (tmp_path / "begun").read_text() == times * "x"
        (tmp_path / "begun").unlink()
        (tmp_path / "out.txt").unlink()
    assert not list(tmp_path.glob("*.lock"))


def test_what_nobody_notes_is_put_together_by_the_next(launch, tmp_path):
    """In a study that a Snakemake has held, which takes the work of a job away once it has noted that it is done."""
    writes = "(work / 'part').write_text('whole'); table.write_text"
    (tmp_path / "script.py").write_text(SCRIPT.replace("table.write_text", writes))
    lock.hold_study(tmp_path / "results").close()
    assert launch().returncode == 0
    assert (tmp_path / "out.txt").exists() and len(list((tmp_path / "work").glob("*/part"))) == 1
    (tmp_path / "script.py").write_text(SCRIPT)
    assert launch().returncode == 0
    assert (tmp_path / "out.txt").read_text() == "3 7 2 ['part']"


def test_what_outlived_a_snakemake_and_left_its_work_is_taken(launch, tmp_path):
    work = "(work.parent.parent / 'begun').open('a').write('x'); time.sleep(6); table.write_text"
    (tmp_path / "script.py").write_text("import time\n" + SCRIPT.replace("table.write_text", work))
    lock.hold_study(tmp_path / "results").close()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(launch)
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        second = launch()
    assert first.result().returncode == second.returncode == 0
    assert "waiting for process" in second.stderr and (tmp_path / "begun").read_text() == "x"
    assert (tmp_path / "out.txt").exists() and (tmp_path / "work").exists()


def test_inputs_that_changed_are_refused(launch, tmp_path):
    table = tmp_path / "results/in.parquet"
    tables.write(pl.DataFrame({"step": [1], "metric": ["loss"], "value": [0.5]}), table, "history")
    assert launch(data=str(table)).returncode == 0
    table.write_bytes(table.read_bytes()[:-1] + b"2")
    done = launch(data=str(table))
    assert done.returncode == 1 and done.stderr.startswith(f"error: {table}: changed after it was written")


def test_one_of_several_processes_clears_up_and_reports(launch, tmp_path):
    assert launch(rank="1").returncode == 0
    assert (tmp_path / "work").exists() and not (tmp_path / "timing.json").exists()
    assert launch(rank="0").returncode == 0
    assert not (tmp_path / "work").exists() and (tmp_path / "timing.json").exists()


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664)])
def test_what_a_job_writes_is_as_the_umask_says(launch, tmp_path, umask, mode):
    """Weights too, which safetensors writes for their owner alone; not what a link in an output leads to."""
    writing = """
import numpy as np
import pyarrow as pa
from safetensors.numpy import save_file
from memedynamics import schemas, tables

def main(table: Path) -> None:
    table.mkdir()
    save_file({"w": np.zeros(1)}, table / "adapter_model.safetensors")
    (table / "model.safetensors").symlink_to("../theirs.safetensors")
    schemas.SCHEMAS["t"] = pa.schema([schemas.field("x", pa.int64(), "a number")])
    tables.write(pa.table({"x": [1]}), table / "t.parquet", "t")
    (table / "run.json").write_text("{}")
"""
    (tmp_path / "theirs.safetensors").touch(0o640)
    (tmp_path / "script.py").write_text(SCRIPT.partition("def main")[0] + writing + "\nrun(main)\n")
    assert launch(umask=umask).returncode == 0
    written = {"adapter_model.safetensors", "t.parquet", "run.json", "model.safetensors"}
    assert {path.name for path in (tmp_path / "out.txt").iterdir()} == written
    made = [*(tmp_path / "out.txt").iterdir(), tmp_path / "timing.json", tmp_path / "results/environment.json"]
    assert {path.stat().st_mode & 0o777 for path in made if not path.is_symlink()} == {mode}
    assert (tmp_path / "theirs.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_job_works_where_a_storage_puts_its_files(launch, tmp_path):
    """All that it is told is relative to that folder, which need not be there yet."""
    paths = {"input": {"data": "../in.txt"}, "output": {"table": "out.txt"}, "work": "work", "root": "results"}
    assert launch(told={"at": "copies", "timing": "timing.json", **paths}).returncode == 0
    assert {path.name for path in (tmp_path / "copies").iterdir()} == {"out.txt", "timing.json", "results"}


def test_settings_are_checked_on_arrival(launch):
    done = launch(sampling={"num_samples": 0})
    assert done.returncode == 1 and "toy: sampling.num_samples" in done.stderr


def test_digest_of_a_folder_is_its_contents(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").write_text("1")
    first = job.contents(tmp_path / "m")
    (tmp_path / "m" / "a").write_text("2")
    assert job.contents(tmp_path / "m") != first
    (tmp_path / "m" / "base.json").write_text("{}")
    manifest = job.contents(tmp_path / "m")
    (tmp_path / "m" / "a").write_text("3")
    assert job.contents(tmp_path / "m") == manifest


def test_large_files_of_a_folder_are_sampled(tmp_path, monkeypatch):
    """One folder in two copies is the same; weights that differ throughout are not."""
    read = []
    sample = checkpoints._sampled_digest
    monkeypatch.setattr(checkpoints, "_sampled_digest", lambda file, size: read.append(file) or sample(file, size))
    for name in ("one", "same", "other"):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "model.safetensors").open("wb") as file:
            file.truncate(checkpoints.HASHED_BELOW)
            file.write(b"other" if name == "other" else b"")
    one, same, other = (job.contents(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same != other and len(read) == 3
