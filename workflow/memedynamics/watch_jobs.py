"""What a study's own files say of its jobs: who is at work on it, which jobs run, how long finished ones took."""

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from memedynamics import living, watch_processes
from memedynamics.lock import RUNNING, WHO
from memedynamics.watch_processes import Running


class Holder(NamedTuple):
    """The Snakemake that has, or last had, the study: since when, where its own log is, and whether it lives.

    Of a process on another machine nothing is known.
    """

    began: float  # seconds of the epoch
    log: Path | None
    alive: bool | None
    process: int


class Done(NamedTuple):
    """A finished job: its rule, its wildcards' values, when it ended and how many seconds it took."""

    rule: str
    where: str
    at: float
    seconds: float


def holder(folder: Path) -> Holder | None:
    """Who has the study in `folder`; None where no Snakemake ever had."""
    try:
        text, began = (folder / RUNNING).read_text(), (folder / RUNNING).stat().st_mtime
    except OSError:
        return None
    who, _, log = text.partition("\n")
    if not (told := WHO.fullmatch(who)):  # it is being written
        return None
    process = int(told[1])
    return Holder(began, folder / log if log else None, living.alive(process, told[2], began), process)


def running(folder: Path, held: Holder | None) -> list[Running]:
    """The jobs of the study in `folder`, by this machine's processes and by all jobs' locks, the longest first."""
    found = [_running(folder / ".work", file, held) for file in files(folder / ".work", ".lock")]
    found += watch_processes.jobs(held.process) if held and held.alive else []
    jobs = {(job.rule, job.where): job for job in sorted(filter(None, found), key=lambda job: -job.since)}
    return sorted(jobs.values(), key=lambda job: job.since)


def _running(root: Path, file: Path, held: Holder | None) -> Running | None:
    try:
        who, since = file.read_text(errors="replace"), file.stat().st_mtime
    except OSError:  # it ended meanwhile
        return None
    if not (told := WHO.fullmatch(who)):  # a library's own lock, in a job's work
        return None
    alive = living.alive(int(told[1]), told[2], since)
    # What was killed on another machine may have left its lock.
    if alive or alive is None and held and held.alive is not False and since >= held.began - living.SLACK:
        rule, _, where = str(file.relative_to(root).with_suffix("")).partition("/")
        return Running(rule, where, since, told[2] if alive is None else None)
    return None


def files(root: Path, ending: str) -> Iterator[Path]:
    """The files below `root` whose names end so; hidden folders, and what vanishes meanwhile, are passed over."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in names if name.endswith(ending))


def done(folder: Path) -> list[Done]:
    """Every job of the study in `folder` that ever finished, as module `job` wrote down."""
    root = folder / "benchmarks/timing"
    stamped = ((file, _stamp(file)) for file in files(root, ".json"))
    told = ((file, stamp, _seconds(file, stamp)) for file, stamp in stamped if stamp)
    return [
        Done(*str(file.relative_to(root).with_suffix("")).partition("/")[::2], stamp, seconds)
        for file, stamp, seconds in told
        if seconds is not None
    ]


def _stamp(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


@cache
def _seconds(file: Path, stamp: float) -> float | None:
    """What `file`, written at `stamp`, says; None while it is being written."""
    try:
        return float(json.loads(file.read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
