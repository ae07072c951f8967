"""Trainings that two processes share end where one process alone ends, as far as what they draw is the same.

One process and two see the same rows in every step. SFT and DPO take means over the step's tokens or pairs, so that only
rounding differs. GRPO's processes each draw their own completions: prompts and numbers agree, texts do not.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file

from memedynamics import lease, tables
from test_resume import same
from tiny_study import ROOT, outputs, train, write_study

# 18 pairs: three steps of six an epoch.
ARGS = {
    "sft": {"per_device_train_batch_size": 6, "learning_rate": 1e-3},
    "dpo": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "learning_rate": 1e-3},
    "grpo": {"steps_per_generation": 2, "learning_rate": 1e-3},
}
STOPPED = {"sft": {**ARGS["sft"], "num_train_epochs": 3}, "grpo": ARGS["grpo"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


def launch(folder: Path, study: Path, runs: dict[str, tuple], settings: str) -> subprocess.Popen:
    """Two processes that train `runs` (name: kind, arguments, whether it is stopped once) in `folder`."""
    config = ROOT / "config/accelerate" / settings
    job = {"cfg": {"launch": {"processes": 2, "config": str(config)}}, "nodes": 1, "threads": 2}
    job |= {"folder": str(folder), "study": str(study), "runs": runs}
    paths = os.pathsep.join([str(ROOT / "workflow"), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"MEMEDYNAMICS_GPUS": "0,1", "TMPDIR": str(folder)}
    script = [str(ROOT / "tests/sharing_processes.py"), json.dumps(job)]
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "memedynamics.launch", *script]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def ended(process: subprocess.Popen, folder: Path) -> None:
    assert process.wait(600) == 0, (folder / "log").read_text()[-8000:]


@pytest.fixture(scope="module")
def shared(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs of two processes, and whether devices were free for another job meanwhile."""
    folder = tmp_path_factory.mktemp("shared")
    runs = {kind: (kind, args, False) for kind, args in ARGS.items()}
    runs |= {f"{kind}-{how}": (kind, args, how == "stopped") for kind, args in STOPPED.items() for how in HOW[kind]}
    process = launch(folder, study, runs, "ddp.yaml")
    while not (folder / "rank1.json").exists():
        assert process.poll() is None, (folder / "log").read_text()[-8000:]
    free = others(folder)
    ended(process, folder)
    (folder / "devices.json").write_text(json.dumps([free, others(folder)]))
    return folder


HOW = {"sft": ["whole", "stopped"], "grpo": ["stopped"]}


def others(folder: Path) -> list[str]:
    """The devices that another job could take, by their names."""
    found = [name for name in "01" if _is_free(next(folder.glob(f"memedynamics-gpus-*/*-{name}.lock")))]
    return found


def _is_free(lock: Path) -> bool:
    import fcntl

    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
