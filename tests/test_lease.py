"""Two jobs never hold one GPU; a dead job holds none."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memedynamics import lease

LIBRARY = Path(lease.__file__).resolve().parents[1]
HOLD = """
import json, os, sys, time
from memedynamics import lease
with lease.gpus(int(sys.argv[1]), poll=0.05) as held:
    start = time.time()
    print(json.dumps({"held": held, "visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "start": start}), flush=True)
    time.sleep(float(sys.argv[2]))
    print(time.time(), flush=True)
"""


@pytest.fixture
def start(tmp_path):
    """Starts a process that holds `count` of the fake devices 0 and 1 for `seconds`."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(LIBRARY), "TMPDIR": str(tmp_path)}
    started = []

    def run(count, seconds, **extra):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(count), str(seconds)],
            env={**environment, "MEMEDYNAMICS_GPUS": "0,1", **extra},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()


def test_five_jobs_on_two_devices_never_share_one(start):
    jobs = [start(1, 0.4) for _ in range(5)]
    spans = []
    for job in jobs:
        first, last = job.communicate(timeout=60)[0].splitlines()
        told = json.loads(first)
        assert told["visible"] == ",".join(told["held"])
        spans.append((told["held"][0], told["start"], float(last)))
    assert {device for device, *_ in spans} == {"0", "1"}
    for i, (device, begin, end) in enumerate(spans):
        for other, other_begin, other_end in spans[:i]:
            assert device != other or end <= other_begin or other_end <= begin


def test_two_devices_at_once_wait_for_both(start):
    single, double = start(1, 0.5), None
    json.loads(single.stdout.readline())
    double = start(2, 0.0)
    told = json.loads(double.stdout.readline())
    assert told["held"] == ["0", "1"]
    assert told["start"] >= float(single.stdout.readline())


def test_a_killed_job_frees_its_device(start):
    jobs = [start(1, 60), start(1, 60)]
    for job in jobs:
        job.stdout.readline()
    jobs[0].send_signal(signal.SIGKILL)
    begun = time.time()
    assert json.loads(start(1, 0).stdout.readline())["held"]
    assert time.time() - begun < 20


def test_an_allocation_of_the_scheduler_is_left_alone(start):
    own = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "3", lease.ALLOCATED: "7"}
    told = json.loads(start(1, 0, **own).stdout.readline())
    assert told["held"] == [] and told["visible"] == "3"


def test_jobs_that_share_an_allocation_share_no_device(start):
    """As under `salloc`; a mark left over from another allocation changes nothing."""
    shared = {"SLURM_JOB_ID": "7", lease.ALLOCATED: "6"}
    jobs = [start(1, 60, **shared), start(1, 60, **shared)]
    assert sorted(json.loads(job.stdout.readline())["held"][0] for job in jobs) == ["0", "1"]
    # Another allocation's devices are others, though it numbers them from 0 too.
    assert json.loads(start(2, 0, SLURM_JOB_ID="8").stdout.readline())["held"] == ["0", "1"]
    third = start(1, 0, **shared)
    with pytest.raises(subprocess.TimeoutExpired):
        third.communicate(timeout=1)


def test_an_empty_mark_is_none(start):
    job = start(1, 0, SLURM_JOB_ID="", **{lease.ALLOCATED: ""})
    assert json.loads(job.stdout.readline())["held"]


def test_nothing_to_lease_without_a_device(monkeypatch):
    monkeypatch.setenv("MEMEDYNAMICS_GPUS", "")
    with lease.gpus(1) as held:
        assert held == []
