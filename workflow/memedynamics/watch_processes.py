"""The jobs that are processes of a Snakemake on this machine, from the moment they begin."""

import json
from typing import NamedTuple

import psutil


class Running(NamedTuple):
    """A job at work: its rule, its wildcards' values, since when, and on which other machine."""

    rule: str
    where: str
    since: float  # seconds of the epoch
    host: str | None


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
