"""What a training becomes: itself, Accelerate's launcher, or a job step on every machine that Slurm gave."""

import sys

import pytest

from memedynamics import launch, lease
from memedynamics.errors import InputError

JOB = ["script.py", "{}"]
DDP = {"processes": 8, "config": "config/accelerate/ddp.yaml"}
ALLOCATION = {"SLURM_JOB_ID": "47110", lease.ALLOCATED: "47110"}
STEP = {**ALLOCATION, "SLURM_STEP_ID": "0", "SLURM_NODEID": "1", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine with two devices, outside of Slurm."""
    for name in STEP:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MEMEDYNAMICS_GPUS", "0,1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "30")
    monkeypatch.setattr(lease.tempfile, "gettempdir", lambda: str(tmp_path))


def becomes(shape, monkeypatch, environment=None, launched=DDP):
    for name, value in (environment or {}).items():
        monkeypatch.setenv(name, value)
    return launch.command(launch.Shape(*shape), launched, environment or {}, JOB)


def test_one_process_is_the_script_itself(monkeypatch):
    assert becomes((1, 1, 4), monkeypatch) == [sys.executable, *JOB]


def test_several_on_one_machine_are_accelerates(monkeypatch):
    program, *rest = becomes((2, 1, 4), monkeypatch)
    config = ["--config_file", "config/accelerate/ddp.yaml", "--num_processes", "2", "--num_machines", "1"]
    assert rest == ["-m", "accelerate.commands.launch", *config, "--main_process_port", "0", *JOB]


def test_more_than_the_machine_has_are_refused(monkeypatch):
    with pytest.raises(InputError, match="launch.processes: 8 on this machine, which has 2 GPUs; ask for fewer"):
        becomes((8, 1, 4), monkeypatch)


def test_several_machines_need_slurm(monkeypatch):
    with pytest.raises(InputError, match="launch.nodes: several machines need Slurm"):
        becomes((8, 2, 4), monkeypatch)


@pytest.mark.parametrize("shape", [(1, 1, 4), (8, 2, 4)])
def test_a_job_without_a_step_begins_one_on_every_machine(shape, monkeypatch):
    """As a task of an array, or on several machines."""
    found = becomes(shape, monkeypatch, ALLOCATION)
    wanted = {f"--nodes={shape[1]}", f"--ntasks={shape[1]}", "--ntasks-per-node=1", "--cpus-per-task=4"}
    assert found[0] == "srun" and wanted <= set(found)
    assert found[-5:] == [sys.executable, "-m", "memedynamics.launch", *JOB]


def test_machines_find_the_first_one(monkeypatch):
    """The port is the job's own: 20000 + 47110 mod 20000."""
    found = becomes((8, 2, 4), monkeypatch, STEP)
    place = ["--machine_rank", "1", "--main_process_ip", "10.0.0.7", "--main_process_port", "27110", "--same_network"]
    assert found[-7 - len(JOB) :] == [*place, *JOB]
    assert found[found.index("--num_machines") + 1] == "2"
