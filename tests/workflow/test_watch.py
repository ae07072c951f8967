"""`snakemake watch`, twice, beside a Snakemake that has the study: served, ended in peace, and nothing touched."""

import json
import os
import re
import signal
import subprocess
from urllib.request import urlopen

import pytest

from memedynamics import lock
from smoke_study import SMOKE, copy_tree

pytestmark = pytest.mark.workflow


@pytest.fixture
def held(tmp_path):
    """A project whose study this process has, with Snakemake's own lock on one of its files."""
    folder = copy_tree(tmp_path / "project")
    locks = folder / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("results/smoke/data/pictograms/train.parquet\n")
    with lock.hold_study(folder / "results/smoke", str(folder / ".snakemake/log/run.snakemake.log")):
        yield folder


def start(folder):
    """`snakemake watch` and the address that it prints."""
    command = ["snakemake", "watch", "--cores", "1", "--configfile", SMOKE]
    surroundings = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "stdin": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=folder, env=surroundings, start_new_session=True, **pipes)
    said = ""
    for line in process.stdout:
        said += line
        if found := re.match(r"watching results/smoke: (http://127\.0\.0\.1:\d+/) ", line):
            return process, found[1]
    raise AssertionError(said)


def test_two_of_them_beside_a_running_study(held):
    def everything():
        return {path: path.stat().st_mtime_ns for path in [held / "results", *(held / "results").rglob("*")]}

    before = everything()
    watching = [start(held) for _ in range(2)]
    for _, address in watching:
        with urlopen(f"{address}state.json") as answer:
            assert json.load(answer)["state"] == "running"
    for process, _ in watching:
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
        said, _ = process.communicate(timeout=60)
        assert "no longer watching; the study goes on as it was" in said
    assert (held / ".snakemake/locks/0.output.lock").exists()
    assert everything() == before
