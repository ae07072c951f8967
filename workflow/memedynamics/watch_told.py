"""What a run's log is known to say, and how each of Snakemake's words adds to it."""

import json
import re
import shlex
from dataclasses import dataclass, field


@dataclass
class Failed:
    """A job that failed: how often, how often it was put on again, and its logs, a cluster's own last."""

    rule: str
    wildcards: dict[str, str]
    logs: list[str]
    blocks: int = 0
    commands: int = 0
    restarts: int = 0
    job: str | None = None

    @property
    def times(self) -> int:
        """How often it failed: with all of Snakemake's words on, each time is told twice."""
        return max(self.blocks, self.commands)


@dataclass
class Told:
    """What a log says: `jobs` planned by rule, the ids of the `finished` ones by rule, `failed` ones, and its end."""

    jobs: dict[str, int] = field(default_factory=dict)
    finished: dict[str, set[str]] = field(default_factory=dict)
    failed: dict[str, Failed] = field(default_factory=dict)  # by log: a rule and wildcards have one
    wildcards: dict[str, dict[str, str]] = field(default_factory=dict)  # by job id
    ended: bool = False
    gave_up: bool = False
    interrupted: bool = False
    heard: float | None = None  # seconds of the epoch: its last time stamp

    def begun(self, block: str) -> None:
        """A job has begun, of which `block` tells."""
        self.wildcards[_line(block, "jobid")] = _wildcards(_line(block, "wildcards"))

    def error(self, rule: str, block: str) -> None:
        """A job of `rule` has failed, of which `block` tells."""
        job = _line(block, "jobid")
        logs = _line(block, "log").removesuffix(" (check log file(s) for error details)").split(", ")
        failed = self.failed.setdefault(logs[0] or f"job {job}", Failed(rule, self.wildcards.get(job, {}), logs))
        failed.blocks, failed.job = failed.blocks + 1, job
        failed.logs = logs  # on a cluster every try has another

    def command(self, command: str) -> None:
        """A job's `command` has failed, as Snakemake quotes it."""
        found = re.search(r"scripts/(\w+)\.py (.*) > (\S+) 2>&1$", command)
        if not found:
            return
        script, argument, log = found.groups()
        rule, wildcards = _job(script, argument)
        failed = self.failed.setdefault(log, Failed(rule, wildcards, [log]))
        failed.commands += 1

    def again(self, job: str) -> None:
        """Job `job` is put on again: the failed one of that id, or where ids are not told the oldest one left over."""
        left = [failed for failed in self.failed.values() if failed.job is None and failed.restarts < failed.times]
        known = [failed for failed in self.failed.values() if failed.job == job]
        for failed in (known or left)[:1]:
            failed.restarts += 1


def _line(block: str, name: str) -> str:
    found = re.search(rf"^ +{name}: (.*)$", block, re.MULTILINE)
    return found.group(1) if found else ""


def _wildcards(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in re.split(r", (?=\w+=)", text) if "=" in part)


def _job(script: str, argument: str) -> tuple[str, dict[str, str]]:
    """Rule and wildcards by a job's JSON argument; the script's name where it has none."""
    try:
        job = json.loads(shlex.split(argument)[0])
        return str(job["rule"]), {str(name): str(value) for name, value in job["wildcards"].items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return script, {}
