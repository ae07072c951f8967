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
from memedynamics.config import Adapter
from test_resume import same
from tiny_study import ROOT, outputs, train, write_study

# 18 pairs: three steps of six an epoch. Two processes halve the batch, the accumulation, the batch.
ARGS = {
    "sft": {"per_device_train_batch_size": 6, "learning_rate": 1e-3},
    "dpo": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "learning_rate": 1e-3},
    "grpo": {"steps_per_generation": 2, "learning_rate": 1e-3},
}
ADAPTERS = {"ddp": {"r": 4}, "fsdp": {"kind": "full"}}
STOPPED = {"ddp": {"sft": "at step 5 of 6", "grpo": "at step 6 of 16"}, "fsdp": {"sft": "at step 5 of 6"}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def shared(study: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder with the runs of two processes, named as their settings; in free.json which devices others could have
    taken meanwhile and after.
    """
    settings, folder = request.param, tmp_path_factory.mktemp("shared") / request.param
    folder.mkdir()
    runs = {kind: (kind, args, ADAPTERS[settings], False) for kind, args in ARGS.items()}
    runs |= {f"{kind}-stopped": (kind, ARGS[kind], ADAPTERS[settings], True) for kind in STOPPED[settings]}
    job = {"cfg": {"launch": {"processes": 2, "config": str(ROOT / f"config/accelerate/{settings}.yaml")}}}
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


def alone(kind: str, shared: Path, study: Path, run: Path) -> dict[str, Path]:
    """The same run of one process."""
    return train(kind, study, run, adapter=Adapter(**ADAPTERS[shared.name]), **ARGS[kind])


def losses(run: dict[str, Path]) -> list[float]:
    return tables.read(run["history"], "history").filter(metric="loss").sort("step")["value"].to_list()


def test_the_launcher_holds_the_devices_for_all(shared: Path) -> None:
    during, after = json.loads((shared / "free.json").read_text())
    assert (during, after) == ([], ["0", "1"])
    told = [json.loads((shared / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert told == 2 * [{"visible": "0,1", "held": [], "world": "2"}]


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_two_processes_end_where_one_ends(kind: str, study: Path, shared: Path, tmp_path: Path) -> None:
    one, two = alone(kind, shared, study, tmp_path), outputs(shared / kind)
    assert losses(two) == pytest.approx(losses(one), abs=2e-6)
    records = [json.loads(run["run"].read_text()) for run in (one, two)]
    assert records[0] == records[1]
    for file in one["milestones"].rglob("*.safetensors"):
        ours, theirs = load_file(file), load_file(two["milestones"] / file.relative_to(one["milestones"]))
        assert ours.keys() == theirs.keys()
        assert all((ours[name] - theirs[name]).abs().max() < 1e-6 for name in ours), file


def test_grpo_sees_the_same_prompts_as_often(study: Path, shared: Path, tmp_path: Path) -> None:
    one, two = alone("grpo", shared, study, tmp_path), outputs(shared / "grpo")
    drawn = [tables.read(run["rollouts"], "rollouts") for run in (one, two)]
    assert drawn[0].select("step", "id", "sample").equals(drawn[1].select("step", "id", "sample"))
    groups = drawn[1].group_by("step", "id").agg(pl.col("text").n_unique())["text"]
    assert groups.mean() > 2, "two processes that draw the same"
    steps = [json.loads(run["run"].read_text())["steps"] for run in (one, two)]
    assert steps[0] == steps[1]
    kl = tables.read(two["history"], "history").filter(metric="kl", step=1)["value"].item()
    assert abs(kl) < 1e-6, "the reference is not where the policy starts"


def test_one_process_told_to_end_stops_both_and_the_run_goes_on(shared: Path) -> None:
    """Both at one step, with a checkpoint that holds what both need: the retried run ends like one never stopped."""
    for kind, words in STOPPED[shared.name].items():
        assert all(words in (shared / f"{kind}-stopped/words{rank}").read_text() for rank in (0, 1))
        same(outputs(shared / f"{kind}-stopped"), outputs(shared / kind))


def test_shards_without_gpus_are_refused(shared: Path) -> None:
    """Each process would hold the whole model, and the settings would say otherwise."""
    said = [path.read_text() for path in sorted(shared.glob("refused/words*"))]
    assert said == (2 if shared.name == "fsdp" else 0) * [
        "launch.config: shards (FSDP) need GPUs, of which this machine has none; use ddp.yaml"
    ]
