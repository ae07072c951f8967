"""Trainings on a real Slurm that are stopped, each in another way, in a copy of the smoke study."""

import json
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow.parquet as pq
import yaml

import one_node_slurm
from smoke_study import SMOKE

# Each is stopped in another way: its time is short and it is warned of that; two processes share it and are told to
# end; its time is up and nobody warned it; it is preempted.
STEPS = {"max_steps": 12, "save_steps": 2}
METHODS = {
    "short": {"kind": "sft", "args": STEPS},
    "shared": {"kind": "dpo", "args": {**STEPS, "learning_rate": 1e-4}, "launch": {"processes": 2}},
    "overdue": {"kind": "rft", "args": STEPS},
    "preempted": {"kind": "dr_grpo", "args": {**STEPS, "num_generations": 4}},
}
RULES = {"short": "train_sft", "shared": "train_dpo", "overdue": "train_rft", "preempted": "train_grpo"}


class Stopped(NamedTuple):
    """A project in which trainings ended after they were stopped; Slurm's records of their jobs; and, of when each
    stopped, the steps of its checkpoints and its log.
    """

    project: Path
    jobs: list[dict[str, str]]
    saved: dict[str, list[int]]
    said: dict[str, str]


def train(finished, folder, names) -> Stopped:
    """Train the methods `names` in a copy of the study `finished`, and stop each on its way."""
    project = folder / "project"
    shutil.copytree(finished, project, symlinks=True)
    study = yaml.safe_load((project / SMOKE).read_text())
    study["methods"] |= {name: METHODS[name] for name in names}
    (project / SMOKE).write_text(yaml.safe_dump(study, sort_keys=False))
    give_little_time(project / "slurm/config.yaml", train_sft="--signal=TERM@30", train_rft="")
    wanted = [f"results/smoke/runs/{name}/seed1/run.json" for name in names]
    command = ["snakemake", *wanted, *one_node_slurm.FLAGS, "--configfile", SMOKE]
    saved, said, told = {}, {}, {}
    with one_node_slurm.running(folder / "slurm/state"):
        with (project / "output.txt").open("w") as output:
            running = subprocess.Popen(command, cwd=project, stdout=output, stderr=subprocess.STDOUT)
        with ThreadPoolExecutor() as pool:  # while one is held, another trains
            while len(saved) < len(names):
                assert running.poll() is None, (project / "output.txt").read_text()[-8000:]
                for name in names:
                    if name not in told and whole(project, name):
                        told[name] = pool.submit(STOPS[name], project)
                    elif name in told and name not in saved and ended(name):
                        told[name].result()
                        saved[name] = sorted(map(step, whole(project, name)))
                        said[name] = (project / f"results/smoke/logs/train/{name}/seed1.log").read_text()
                time.sleep(0.2)
        assert running.wait(900) == 0, (project / "output.txt").read_text()[-8000:]
        return Stopped(project, one_node_slurm.records(), saved, said)


def give_little_time(profile, **warnings):
    """To each of these rules as many minutes as it is the attempt, and what Slurm is asked for besides."""
    settings = yaml.safe_load(profile.read_text())
    for rule, warning in warnings.items():
        little = {"runtime": "attempt", "slurm_extra": warning}
        settings["set-resources"][rule] = settings["set-resources"][rule] | little
    profile.write_text(yaml.safe_dump(settings))


def whole(project, name):
    """The method's checkpoints that are whole, while it trains."""
    marks = project.glob(f"results/smoke/.work/{RULES[name]}/{name}/*/*/checkpoints/checkpoint-*/complete")
    return [mark.parent for mark in marks]


def step(checkpoint):
    return int(checkpoint.name.rpartition("-")[2])


def attempts(name):
    return [job for job in one_node_slurm.records() if job["Rule"] == RULES[name]]


def ended(name):
    """Whether Slurm has the method's first try as failed, over its time, or preempted."""
    return any(job["JobState"] in ("FAILED", "TIMEOUT") or job["Restarts"] == "1" for job in attempts(name))


def running_job(name):
    (job,) = (job for job in attempts(name) if job["JobState"] == "RUNNING")
    return job["JobId"]


def warn(project):
    subprocess.run(["scancel", "--signal=TERM", running_job("shared")], check=True)


def preempt(project):
    """As Slurm does for a job of higher priority: the job is ended and put back into the queue."""
    job = running_job("preempted")
    subprocess.run(["scontrol", "requeue", job], check=True)
    # It would wait two minutes.
    one_node_slurm.wait(lambda: ended("preempted"))
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)


def suspended(project, name):
    """The method's trainings that still run, kept from going on, however fast the machine."""
    found = [process for process in psutil.process_iter() if trains(process, project, RULES[name])]
    for training in found:
        with suppress(psutil.NoSuchProcess):
            training.suspend()
    return found


def hold_until_over(project):
    """Nobody warns it: until its time is over it stands still."""
    assert suspended(project, "overdue")


def hold_until_warned(project):
    """On a slow machine it may have been warned by now."""
    for training in suspended(project, "short"):
        one_node_slurm.wait(lambda training=training: terminated(training), 120)
        with suppress(psutil.NoSuchProcess):
            training.resume()


STOPS = {"short": hold_until_warned, "shared": warn, "overdue": hold_until_over, "preempted": preempt}


def trains(process, project, rule):
    try:
        return process.cmdline()[1:2] == [f"workflow/scripts/{rule}.py"] and process.cwd() == str(project)
    except psutil.Error:
        return False


def terminated(process):
    """Whether SIGTERM waits for the suspended process, or it has ended."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return True
    pending = re.search(r"^ShdPnd:\s*(\w+)", status, re.MULTILINE)[1]
    return bool(int(pending, 16) >> (signal.SIGTERM - 1) & 1)


def memory(jobs):
    """What each of a rule's jobs was given (MB), in the order of its tries."""
    given = [re.match(r"([\d.]+)([MG])", job["MinMemoryNode"]).groups() for job in jobs]
    return sorted(round(float(number) * {"M": 1, "G": 1024}[unit]) for number, unit in given)


def went_on(stopped):
    """Each had saved part of its way, and its history has every step once."""
    for name, saved in stopped.saved.items():
        assert 2 <= saved[-1] < 12
        run = stopped.project / f"results/smoke/runs/{name}/seed1"
        steps = [row["step"] for row in pq.read_table(run / "history.parquet").to_pylist() if row["metric"] == "loss"]
        assert json.loads((run / "run.json").read_text())["total_steps"] == 12 and sorted(steps) == list(range(1, 13))
