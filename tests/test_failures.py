"""What the terminal says of failed jobs, read from logs as Snakemake really writes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memedynamics import failures

ROOT = Path(__file__).parents[1]
WORKFLOW = """
import sys
sys.path.insert(0, {library!r})
from memedynamics.failures import print_failures
onerror:
    print_failures(log)
rule all:
    input: "a.txt", "b.txt", "c.txt"
rule fails:
    output: "{{name}}.txt"
    wildcard_constraints: name="a|b"
    log: "logs/{{name}}.log"
    shell: "(echo starting; echo 'error: row 7 of {{wildcards.name}} is bad' 1>&2; exit 1) > {{log}} 2>&1"
rule works:
    output: "c.txt"
    log: "logs/c.log"
    shell: "(echo 'error: not fatal'; touch {{output}}) > {{log}} 2>&1"
"""


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A workflow of which two jobs fail and one works, run once."""
    folder = tmp_path_factory.mktemp("failing")
    (folder / "Snakefile").write_text(WORKFLOW.format(library=str(ROOT / "workflow")))
    command = [sys.executable, "-m", "snakemake", "--cores", "3", "--keep-going", "--nocolor"]
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 1, done.stderr
    return folder, done.stderr


def test_snakemakes_own_log_names_the_failed_jobs(failed):
    folder, _ = failed
    (log,) = (folder / ".snakemake/log").glob("*.log")
    assert sorted(failures.failed_logs(log.read_text())) == [Path("logs/a.log"), Path("logs/b.log")]


def test_the_terminal_shows_each_failed_jobs_error(failed):
    _, shown = failed
    for name in ("a", "b"):
        assert shown.count(f"\nlogs/{name}.log:\nerror: row 7 of {name} is bad\n") == 1
    assert "not fatal" not in shown


def test_a_failed_cluster_job(tmp_path):
    """A cluster's executor names the log in its message, perhaps two of them, and the command not at all."""
    text = (
        "Error in rule score:\n    jobid: 3\n    log: logs/x 1.log, logs/y.log (check log file(s) for error details)\n"
    )
    assert failures.failed_logs(text + text) == [Path("logs/x 1.log"), Path("logs/y.log")]


def test_a_job_that_was_killed_where_snakemake_says_little():
    """With `--quiet rules` only the command is told, and a job that a signal ended has no exit status there."""
    text = "Command 'python x.py '{}' > logs/x.log 2>&1' died with <Signals.SIGKILL: 9>.\n"
    assert failures.failed_logs(text) == [Path("logs/x.log")]


def test_last_words(tmp_path):
    log = tmp_path / "job.log"
    assert failures.last_words(log) == ""
    log.write_text("")
    assert failures.last_words(log) == ""
    log.write_text("\n".join(f"line {number}" for number in range(40)) + "\n\n")
    assert failures.last_words(log).splitlines() == [f"line {number}" for number in range(25, 40)]
    log.write_bytes(b"\xff\nno newline")
    assert failures.last_words(log).splitlines()[1] == "no newline"


def test_the_jobs_error_stands_above_its_launchers_traceback(tmp_path):
    log = tmp_path / "job.log"
    traceback = ["Traceback (most recent call last):", *["  File somewhere"] * 30, "CalledProcessError"]
    log.write_text("\n".join(["error: an earlier one", "error: the batch is odd", *traceback]))
    assert failures.last_words(log) == "error: the batch is odd"


def test_a_workflow_log_without_failures(tmp_path, capsys):
    (tmp_path / "x.log").write_text("Building DAG of jobs...\nNothing to be done.\n")
    failures.print_failures([str(tmp_path / "x.log")])
    assert capsys.readouterr() == ("", "")
