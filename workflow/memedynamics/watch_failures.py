"""The failed jobs of a run, each with the end of its log."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from memedynamics.watch_jobs import Done
from memedynamics.watch_processes import Running
from memedynamics.watch_told import Failed, Told

LINES, WIDTH = 30, 1000  # of a log's end: lines, and characters of each
TAIL = 1 << 16  # bytes
CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


def tail(log: Path) -> list[str]:
    """The last lines of `log` as a terminal would show them: of a progress bar its last state, no colours."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip().split("\n")]
    return [CONTROL.sub("", line)[:WIDTH] for line in lines[-LINES:]] if text.strip() else []


def failures(
    told: Told, done: Iterable[Done], running: Iterable[Running], began: float, places: list[Path]
) -> list[dict]:
    """The jobs that failed in this run, which began at `began`, and have not ended well since: as the page shows them.

    Logs are read where they lie in one of `places`, the first of which relative ones are below.
    """
    well = {(job.rule, job.where) for job in done if job.at >= began}
    at_work = {(job.rule, job.where) for job in running}
    left = [(failed, place(failed.wildcards)) for failed in told.failed.values()]
    return [
        {
            "rule": failed.rule,
            "wildcards": failed.wildcards,
            "times": failed.times,
            "retried": failed.restarts,
            "now": _now(failed, (failed.rule, where) in at_work),
            **_end(failed.logs, places),
        }
        for failed, where in left
        if (failed.rule, where) not in well and failed.job not in told.finished.get(failed.rule, ())
    ]


def place(wildcards: dict[str, str]) -> str:
    """The wildcards' values as a job's own files are named by them."""
    return "/".join(wildcards.values()) or "all"


def _now(failed: Failed, at_work: bool) -> str:
    if at_work:
        return "running again"
    return "waiting for another try" if failed.restarts >= failed.times else "given up"


def _end(logs: list[str], places: list[Path]) -> dict[str, object]:
    """The first of `logs` that says something, and its end; the first one where none does."""
    inside = [log for log in logs if any((places[0] / log).resolve().is_relative_to(p.resolve()) for p in places)]
    ends = [{"log": log, "lines": tail(places[0] / log)} for log in inside]
    return next((end for end in ends if end["lines"]), {"log": logs[0] if logs else "", "lines": []})
