"""A small study under way, as its files would show it: jobs done, at work and failed, a training with live rows."""

import json
import os
import socket
import time
from pathlib import Path

import polars as pl

from memedynamics import live, lock, tables

STAGES = {"prepare": "data", "train_sft": "training", "train_grpo": "training", "score": "scoring"}
HOSTILE = '<script>alert("log")</script> & <img src=x onerror=alert(1)>'
# A method's name that the schema of studies would refuse: the page must not count on that.
METHOD = '"><img src=x onerror=alert(2)>'
LOG = """Building DAG of jobs...
Job stats:
job           count
----------  -------
prepare           2
train_sft         2
train_grpo        1
score             4
all               1
total            10

Select jobs to execute...
Execute 1 jobs...
[{time}]
Finished jobid: 1 (Rule: prepare)
1 of 10 steps (10%) done
[{time}]
Finished jobid: 2 (Rule: prepare)
2 of 10 steps (20%) done
[{time}]
Finished jobid: 3 (Rule: train_sft)
3 of 10 steps (30%) done
[{time}]
rule score:
    input: results/demo/runs/sft/seed1/milestones
    log: results/demo/logs/score.log
    jobid: 7
    wildcards: method={method}, seed=1

[{time}]
Error in rule score:
    jobid: 7
    log: results/demo/logs/score.log (check log file(s) for error details)

Trying to restart job 7.
[{time}]
Error in rule score:
    jobid: 7
    log: results/demo/logs/score.log (check log file(s) for error details)

"""


def write(project: Path, now: float) -> Path:
    """The study in `project`, 100 s after its Snakemake, this process, began; returns its folder."""
    folder, began = project / "results/demo", now - 100
    log = project / ".snakemake/log/run.snakemake.log"
    put(log, LOG.format(time=time.asctime(time.localtime(now - 5)), method=METHOD))
    put(folder / lock.RUNNING, f"process {os.getpid()} on {socket.gethostname()}\n{log}", began)
    for name, seconds, at in [("prepare/a", 10, 80), ("prepare/b", 20, 60), ("train_sft/sft/1", 30, 40)]:
        put(folder / f"benchmarks/timing/{name}.json", json.dumps({"seconds": seconds}), now - at)
    at_work(folder, "train_grpo/grpo/1", now - 40)
    train(folder, "train_grpo/grpo/1", now, 10)
    history(folder, "sft", 1)
    put(folder / "logs/score.log", "\n".join(f"line {i}" for i in range(40)) + f"\n{HOSTILE}\nerror: odd batch\n")
    return folder


def put(file: Path, text: str, at: float | None = None) -> None:
    """Write `text` to `file`, at the time `at` (seconds of the epoch)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    if at is not None:
        os.utime(file, (at, at))


def at_work(
    folder: Path, job: str, since: float, who: str = f"process {os.getpid()} on {socket.gethostname()}"
) -> None:
    """Let `job` (rule and wildcards' values) be at work since then."""
    put(folder / f".work/{job}.lock", f"{who} at results/demo/.work/{job}/abc", since)


def train(folder: Path, job: str, now: float, steps: int) -> None:
    """Live rows of a training at step `steps` of 40, a second a step, the last one `now`."""
    rows = [
        {"step": i, "max_steps": 40, "at": now - steps + i, "loss": 1 / i, "reward": 0.1 * i, "kl": 0.01 * i}
        for i in range(1, steps + 1)
    ]
    put(folder / f".work/{job}/abc/{live.FILE}", "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 11, "ma')


def history(folder: Path, method: str, seed: int) -> None:
    """The history of a finished training of 20 steps."""
    table = pl.DataFrame({"step": range(1, 21), "metric": "loss", "value": [2 - 0.05 * i for i in range(20)]})
    tables.write(table, folder / f"runs/{method}/seed{seed}/history.parquet", "history")
