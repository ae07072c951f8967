"""The jobs that are processes of a Snakemake on this machine, from the moment they begin."""

import json
import socket
from typing import NamedTuple

import psutil

SLACK = 2.0  # seconds between a process's start and what it writes, by clocks that differ


class Running(NamedTuple):
    """A job at work: its rule, its wildcards' values, since when, and on which other machine."""

    rule: str
    where: str
    since: float  # seconds of the epoch
    host: str | None


def alive(process: int, host: str, since: float) -> bool | None:
    """Whether `process`, which wrote something down at `since`, still is that one; None where it is on another machine.

    An ended one's number may have been given to another.
    """
    if host != socket.gethostname():
        return None
    try:
        return psutil.Process(process).create_time() <= since + SLACK
    except psutil.NoSuchProcess:
        return False


def jobs(process: int) -> list[Running]:
    """The jobs below `process`: a job only holds its lock once it has imported what it needs."""
    try:
        below = psutil.Process(process).children(recursive=True)
    except psutil.Error:  # it ended meanwhile
        return []
    return [job for child in below if (job := _job(child))]


def _job(process: psutil.Process) -> Running | None:
    """What a process does by its last argument, a job's (module `job`); None where it is something else."""
    try:
        command, since = process.cmdline(), process.create_time()
        told = json.loads(command[-1])
        return Running(told["rule"], "/".join(told["wildcards"].values()) or "all", since, None)
    except (psutil.Error, ValueError, LookupError, TypeError, AttributeError):
        return None
