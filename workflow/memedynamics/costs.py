"""What a trial run measured, by rule, and what it says about the whole study."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from memedynamics.loads import Load


class Cost(NamedTuple):
    """One rule in a trial: seconds and bytes that every job takes, and what every unit of work adds to them."""

    startup: float  # seconds a job, mostly loading the model
    job_bytes: float  # bytes a job: the adapters of a training
    seconds: float
    tokens: float
    bytes: float


class Need(NamedTuple):
    """One rule in the whole study: GPU-hours (or hours of one job where it needs no GPU) and bytes on disk."""

    hours: float
    bytes: float


def measured(timings: Iterable[Path], units: int, tokens: int = 0, size: int = 0, job_size: int = 0) -> Cost:
    """The cost of a rule from its jobs' timing files and from what they did together: units, tokens, bytes.

    `size` bytes grow with the units, `job_size` bytes with the jobs.
    """
    jobs = [json.loads(Path(file).read_text()) for file in timings]
    items = sum(job["items"] for job in jobs)
    startup = sum(job["seconds"] - job["items"] for job in jobs) / max(len(jobs), 1)
    each = max(units, 1)
    return Cost(startup, job_size / max(len(jobs), 1), items / each, tokens / each, size / each)


def needed(load: Load, cost: Cost) -> Need:
    """`load` at the trial's `cost`: every job starts up once, every unit takes as long as it took in the trial."""
    seconds = load.jobs * cost.startup + load.units * cost.seconds
    return Need(seconds / 3600, load.jobs * cost.job_bytes + load.units * cost.bytes)


def write(costs: dict[str, Cost], path: Path) -> None:
    """Write the costs by rule as JSON."""
    path.write_text(json.dumps({rule: cost._asdict() for rule, cost in costs.items()}, indent=1) + "\n")


def read(path: Path) -> dict[str, Cost]:
    """The costs by rule in `path`; none where there has been no trial."""
    return {rule: Cost(**cost) for rule, cost in json.loads(path.read_text()).items()} if path.exists() else {}
