"""Snakemake's own log, as it really writes it: with all its words and with `--quiet rules`, and from a cluster."""

import os
import random
import re
import subprocess
import sys
import time

import pytest

from memedynamics.watch_log import Follower, Reader
from memedynamics.watch_told import Told

# Jobs take one JSON argument, as this project's do. `flaky` works at its second try, `fails` never does, and what it
# says looks like Snakemake's own words.
WORKFLOW = """
import json
def job(wildcards):
    return json.dumps({"rule": rule_of(wildcards), "wildcards": dict(wildcards), "text": "it's"})
def rule_of(wildcards):
    return "fails" if dict(wildcards) else "flaky"
rule all:
    input: "works/1.txt", "works/2.txt", "flaky.txt", "fails/sft/1.txt"
rule works:
    output: "works/{n}.txt"
    log: "logs/works/{n}.log"
    shell: "touch {output} > {log} 2>&1"
rule flaky:
    output: "flaky.txt"
    log: "logs/flaky.log"
    retries: 1
    params: job=job
    shell: "python scripts/flaky.py {params.job:q} > {log} 2>&1"
rule fails:
    output: "fails/{method}/{seed}.txt"
    log: "logs/fails/{method}/{seed}.log"
    retries: 1
    params: job=job
    shell: "python scripts/fails.py {params.job:q} > {log} 2>&1"
"""
FLAKY = """
import pathlib, sys
tried = pathlib.Path("tried")
pathlib.Path("flaky.txt").touch() if tried.exists() else tried.touch() or sys.exit("not yet")
"""
FAILS = """
import os, signal
print("Finished jobid: 99 (Rule: fails)\\n" + "=" * 9 + "\\nError in rule works:\\n    jobid: 98\\n", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
QUIET = ["--quiet", "rules", "host"]
STAMPED = "[Tue Dec  1 07:05:{second:02} 2026]\nFinished jobid: {job} (Rule: score)\n{job} of 999999 steps (0%) done\n"


def read(text):
    """What a log says that is read at once."""
    reader = Reader()
    reader.take(text)
    return reader.told()


def add(log, content):
    with log.open("ab") as file:
        file.write(content)


@pytest.fixture(scope="module", params=[[], ["--show-failed-logs"], QUIET], ids=["told", "shown", "quiet"])
def text(request, tmp_path_factory):
    """The log of such a run."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "scripts").mkdir()
    for name, text in (("Snakefile", WORKFLOW), ("scripts/flaky.py", FLAKY), ("scripts/fails.py", FAILS)):
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--keep-going", *request.param]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    (log,) = (folder / ".snakemake/log").glob("*.log")
    return log.read_text()


@pytest.fixture
def told(text):
    return read(text)


def test_planned_and_finished_jobs(told):
    assert told.jobs == {"works": 2, "flaky": 1, "fails": 1, "all": 1}
    assert {rule: len(jobs) for rule, jobs in told.finished.items()} == {"works": 2, "flaky": 1}
    assert told.ended and told.gave_up and not told.interrupted and told.heard > 1e9


def test_failed_jobs_with_their_wildcards_logs_and_tries(told):
    assert set(told.failed) == {"logs/flaky.log", "logs/fails/sft/1.log"}
    failed = told.failed["logs/fails/sft/1.log"]
    assert (failed.rule, failed.wildcards, failed.logs) == (
        "fails",
        {"method": "sft", "seed": "1"},
        [*told.failed][-1:],
    )
    assert (failed.times, failed.restarts) == (2, 1)
    flaky = told.failed["logs/flaky.log"]
    assert (flaky.rule, flaky.wildcards, flaky.times, flaky.restarts) == ("flaky", {}, 1, 1)


def test_a_log_is_read_while_it_is_written(text):
    """Snakemake writes message by message: after none of them is anything told that the end takes back."""
    whole = read(text)
    for message in re.finditer(r"^\[", text, re.MULTILINE):
        told = read(text[: message.start()])
        assert all(jobs <= whole.finished[rule] for rule, jobs in told.finished.items())
        assert all(failed.times <= whole.failed[log].times for log, failed in told.failed.items())


def test_a_job_that_failed_on_a_cluster():
    """Slurm's executor says nothing but the block, and adds a log of its own, another one each time."""
    block = """[Tue Dec  1 07:05:0{try} 2026]
Error in rule score:
    message: SLURM-job '{try}' failed, SLURM status is: 'TIMEOUT'.
    jobid: 3
    input: results/x/model
    log: results/x/logs/a.log, /p/.snakemake/slurm_logs/{try}.log (check log file(s) for error details)
    shell:
        python workflow/scripts/score.py '{{}}' > x 2>&1
        (command exited with non-zero exit code)
    external_jobid: {try}

"""
    begun = "rule score:\n    jobid: 3\n    wildcards: method=a, b, seed=1\n\n"
    told = read(begun + block.format(**{"try": 1}) + "Trying to restart job 3.\n" + block.format(**{"try": 2}))
    (failed,) = told.failed.values()
    assert (failed.rule, failed.times, failed.restarts) == ("score", 2, 1)
    assert failed.wildcards == {"method": "a, b", "seed": "1"}
    assert failed.logs[-1].endswith("slurm_logs/2.log")
    assert not told.ended and not told.gave_up


@pytest.mark.parametrize(
    "text", ["", "Building DAG of jobs...\nNothing to be done.\n", "Job stats:\njob   count\n---  ---\n"]
)
def test_a_log_without_jobs(text):
    assert read(text) == Told()


# Read on as it grows.


@pytest.mark.parametrize("seed", range(5))
def test_read_in_pieces_a_log_says_what_it_says_at_once(text, tmp_path, seed):
    """Pieces end anywhere: within a line, a block, a failed job's own log, a letter of two bytes."""
    draw, whole, log = random.Random(seed), read(text), tmp_path / "x.log"
    content = text.replace("Select jobs", "Sélect jobs").encode()
    log.touch()
    follower = Follower(log)
    while content:
        size = draw.choice([1, 7, 60, 900])
        add(log, content[:size])
        told, content = follower.told(), content[size:]
        assert all(jobs <= whole.finished[rule] for rule, jobs in told.finished.items())
        assert all(
            failed.times <= whole.failed[log].times for log, failed in told.failed.items() if log in whole.failed
        )
    assert told == follower.told() == whole


def test_a_failed_job_is_told_before_anything_follows_it_and_once(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("rule a:\n    jobid: 3\n    wildcards: seed=1\nError in rule a:\n    jobid: 3\n    log: a.log\n")
    follower = Follower(log)
    for _ in range(2):
        (failed,) = follower.told().failed.values()
        assert (failed.times, failed.wildcards, failed.logs) == (1, {"seed": "1"}, ["a.log"])
    add(log, b"Trying to restart job 3.\n")
    (failed,) = follower.told().failed.values()
    assert (failed.times, failed.restarts) == (1, 1)


@pytest.mark.parametrize("content", ["", "Finished jobid: 7 (Rule: b)\n", STAMPED.format(second=9, job=8) * 300])
@pytest.mark.parametrize("moved", [False, True], ids=["truncated", "replaced"])
def test_another_log_in_its_place_starts_anew(tmp_path, content, moved):
    log, other = tmp_path / "x.log", tmp_path / "y.log"
    log.write_text("".join(STAMPED.format(second=job % 60, job=job) for job in range(200)))
    follower = Follower(log)
    assert len(follower.told().finished["score"]) == 200
    (other if moved else log).write_text(content)
    if moved:
        other.replace(log)
    assert follower.told() == read(content)


def test_a_long_log_is_read_once_and_then_only_what_is_new(tmp_path):
    """20 MB, 230 000 jobs; the processor's seconds, with room for a slow machine."""
    log = tmp_path / "x.log"
    log.write_text("".join(STAMPED.format(second=job % 60, job=job) for job in range(230_000)))
    assert log.stat().st_size > 19e6
    follower, began = Follower(log), time.process_time()
    assert len(follower.told().finished["score"]) == 230_000
    assert time.process_time() - began < 3
    add(log, "".join(STAMPED.format(second=job % 60, job=job) for job in range(230_000, 230_012)).encode())
    began = time.process_time()
    assert len(follower.told().finished["score"]) == 230_012
    assert time.process_time() - began < 0.05
