"""What the jobs of a study took: wall time and memory of Snakemake's benchmark files, GPUs of the jobs' own.

Rules go by the folder of their benchmarks, which those that make the same artefact share: train_sft, train_dpo, … are
all `train`. Where a job was run again, its last run counts.
"""

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

TIMING = "timing"


class RuleCost(NamedTuple):
    """What the jobs of one rule took; seconds and MiB as Snakemake measures them, None where it did not."""

    rule: str
    jobs: int
    seconds: float  # of all jobs
    longest: float  # seconds of one job
    memory: float | None  # MiB, the most that one job's processes held at once
    cpu: float | None  # seconds of processor time
    gpus: int  # the most that one job held
    gpu_memory: float | None  # MiB, the most that one process of a job held on its devices


def job_costs(benchmarks: Path) -> list[RuleCost]:
    """The costs by rule in the folder `benchmarks` of a study, the longest first; none where there is none."""
    measured = defaultdict(list)
    for file in sorted(benchmarks.rglob("*.tsv")):
        with file.open() as lines:
            measured[_rule(file.relative_to(benchmarks))] += list(csv.DictReader(lines, delimiter="\t"))
    devices = _devices(benchmarks / TIMING, list(measured))
    found = [_cost(rule, jobs, devices.get(rule, [])) for rule, jobs in measured.items() if jobs]
    return sorted(found, key=lambda cost: -cost.seconds)


def _rule(file: Path) -> str:
    return file.parts[0].removesuffix(".tsv")


def _cost(rule: str, jobs: list[dict[str, str]], devices: list[dict]) -> RuleCost:
    seconds = [_number(job, "s") or 0.0 for job in jobs]
    cpu = [value for job in jobs if (value := _number(job, "cpu_time")) is not None]
    memory = [value for job in jobs if (value := _number(job, "max_rss")) is not None]
    held = [value for each in devices if (value := each.get("gpu_memory")) is not None]
    return RuleCost(
        rule,
        len(jobs),
        sum(seconds),
        max(seconds),
        max(memory, default=None),
        sum(cpu) if cpu else None,
        max((each.get("gpus", 0) for each in devices), default=0),
        max(held, default=None),
    )


def _number(job: dict[str, str], column: str) -> float | None:
    """A benchmark's value; None where the job was too short to be looked at (NA, or a dash)."""
    try:
        return float(job.get(column) or "")
    except ValueError:
        return None


def _devices(timing: Path, rules: list[str]) -> dict[str, list[dict]]:
    """What the jobs wrote down of themselves, by the rule that their benchmarks go by."""
    found = defaultdict(list)
    for file in sorted(timing.rglob("*.json")):
        rule = file.relative_to(timing).parts[0]
        among = [name for name in rules if rule == name or rule.startswith(f"{name}_")]
        if among:
            found[max(among, key=len)].append(json.loads(file.read_text()))
    return found
