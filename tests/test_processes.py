"""Trainings that two processes share end where one process alone ends, as far as what they draw is the same.

One process and two see the same rows in every step. SFT and DPO take means over the step's tokens or pairs, so that
only rounding differs. GRPO's processes each draw their own completions: prompts and numbers agree, texts do not.
"""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load_file

from memedynamics import tables
from test_resume import same
from tiny_study import ROOT, outputs, train, write_study

# 18 pairs: three steps of six an epoch. Two processes halve the batch, the accumulation, the batch.
ARGS = {
    "sft": {"per_device_train_batch_size": 6, "learning_rate": 1e-3},
    "dpo": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "learning_rate": 1e-3},
    "grpo": {"steps_per_generation": 2, "learning_rate": 1e-3},
}
STOPPED = ("sft", "grpo")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def shared(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs of two processes, and which devices another job could have taken meanwhile and after."""
    folder = tmp_path_factory.mktemp("shared")
    runs = {kind: (kind, args, False) for kind, args in ARGS.items()}
    runs |= {f"{kind}-stopped": (kind, ARGS[kind], True) for kind in STOPPED}
    job = {"cfg": {"launch": {"processes": 2, "config": str(ROOT / "config/accelerate/ddp.yaml")}}}
    job |= {"nodes": 1, "threads": 2, "folder": str(folder), "study": str(study), "runs": runs}
    paths = os.pathsep.join([str(ROOT / "workflow"), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"MEMEDYNAMICS_GPUS": "0,1", "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "memedynamics.launch", str(ROOT / "tests/sharing_processes.py"), json.dumps(job)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    while process.poll() is None and not (folder / "sft/run.json").exists():
        free = free_devices(folder)
    assert process.wait() == 0, (folder / "log").read_text()[-8000:]
    (folder / "free.json").write_text(json.dumps([free, free_devices(folder)]))
    return folder


def free_devices(folder: Path) -> list[str]:
    found = []
    for lock in sorted(folder.glob("memedynamics-gpus-*/*.lock")):
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(lock.stem.rpartition("-")[2])
            except BlockingIOError:
                pass
    return found


def losses(run: dict[str, Path]) -> list[float]:
    return tables.read(run["history"], "history").filter(metric="loss").sort("step")["value"].to_list()


def test_the_launcher_holds_the_devices_for_all(shared: Path) -> None:
    during, after = json.loads((shared / "free.json").read_text())
    assert (during, after) == ([], ["0", "1"])
    told = [json.loads((shared / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert told == 2 * [{"visible": "0,1", "held": [], "world": "2"}]


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_two_processes_end_where_one_ends(kind: str, study: Path, shared: Path, tmp_path: Path) -> None:
    alone, both = train(kind, study, tmp_path, **ARGS[kind]), outputs(shared / kind)
    assert losses(both) == pytest.approx(losses(alone), abs=2e-5)
    records = [json.loads(run["run"].read_text()) for run in (alone, both)]
    assert records[0] == records[1]
    for label in records[0]["steps"]:
        file = Path(label) / "adapter_model.safetensors"
        one, two = (load_file(run["milestones"] / file) for run in (alone, both))
        assert all((one[name] - two[name]).abs().max() < 2e-5 for name in one), label


def test_grpo_sees_the_same_prompts_as_often(study: Path, shared: Path, tmp_path: Path) -> None:
    alone, both = train("grpo", study, tmp_path, **ARGS["grpo"]), outputs(shared / "grpo")
    drawn = [tables.read(run["rollouts"], "rollouts") for run in (alone, both)]
    assert drawn[0].select("step", "id", "sample").equals(drawn[1].select("step", "id", "sample"))
    groups = drawn[1].group_by("step", "id").agg(pl.col("text").n_unique())["text"]
    assert groups.min() > 1, "processes that draw the same"
    steps = [json.loads(run["run"].read_text())["steps"] for run in (alone, both)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize(("kind", "words"), [("sft", "at step 5 of 6"), ("grpo", "at step 6 of 16")])
def test_one_process_told_to_end_stops_both_and_the_run_goes_on(kind: str, words: str, shared: Path) -> None:
    """Both at one step, with a checkpoint that holds what both need: the retried run ends like one never stopped."""
    for rank in (0, 1):
        assert words in (shared / f"{kind}-stopped/stopped{rank}").read_text()
    same(outputs(shared / f"{kind}-stopped"), outputs(shared / kind))
