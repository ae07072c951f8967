"""What Snakemake's own log says of a run: how many jobs of each rule, which began, ended and failed.

With `--quiet rules`, as `make demo` has it, the log has no blocks of begun and failed jobs: a failed one then shows in
the command that Snakemake quotes, which holds the job's JSON argument (module `job`).
"""

import json
import re
import shlex
import time
from dataclasses import dataclass, field

EVENT = re.compile(
    r"^\[(?P<time>\w{3} \w{3} [ \d]\d [\d:]{8} \d{4})\]$"
    r"|^(?:local)?(?:rule|checkpoint) (?P<begun>\w+):\n(?P<told>(?: {4}.*\n)*)"
    r"|^Error in rule (?P<failed>\w+):\n(?P<why>(?: {4}.*\n)*)"
    r"|^Command '(?P<command>.*)' (?:returned non-zero|died with)"
    r"|^Finished jobid: (?P<finished>\d+) \(Rule: (?P<rule>\w+)\)"
    r"|^Trying to restart job (?P<again>\d+)\.",
    re.MULTILINE,
)
# A failed job's own log, which may say anything: between two equal lines, where --show-failed-logs is on.
FRAME = re.compile(r"^Logfile .*:\n(?P<frame>=+)\n(?:.*\n)*?(?P=frame)$", re.MULTILINE)
STATS = re.compile(r"^job +count\n-+ +-+\n(.*?)^total", re.MULTILINE | re.DOTALL)

GAVE_UP = re.compile(r"^(Exiting because a job execution failed|At least one job did not complete)", re.MULTILINE)


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


def read(text: str) -> Told:
    """What the log `text`, perhaps of a run that still goes on, says."""
    text = FRAME.sub("", text)
    stats = STATS.search(text)
    rows = re.findall(r"^(\w+) +(\d+)$", stats.group(1), re.MULTILINE) if stats else []
    told = Told(jobs={rule: int(count) for rule, count in rows})
    # Whoever interrupts a run kills its jobs: none of them failed by itself.
    before, interrupted, _ = text.partition("\nTerminating processes on user request")
    for event in EVENT.finditer(before):
        _take(told, event.groupdict())
    told.interrupted = bool(interrupted)
    told.ended = bool(re.search(r"^Complete log\(s\): ", text, re.MULTILINE))
    told.gave_up = bool(GAVE_UP.search(text))
    return told


def _take(told: Told, event: dict[str, str | None]) -> None:
    if event["time"]:
        told.heard = time.mktime(time.strptime(event["time"]))
    elif event["begun"]:
        told.wildcards[_line(event["told"], "jobid")] = _wildcards(_line(event["told"], "wildcards"))
    elif event["failed"]:
        _block(told, event["failed"], event["why"])
    elif event["command"]:
        _command(told, event["command"])
    elif event["finished"]:
        told.finished.setdefault(event["rule"], set()).add(event["finished"])
    elif event["again"]:
        _again(told, event["again"])


def _line(block: str, name: str) -> str:
    found = re.search(rf"^ +{name}: (.*)$", block, re.MULTILINE)
    return found.group(1) if found else ""


def _wildcards(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in re.split(r", (?=\w+=)", text) if "=" in part)


def _block(told: Told, rule: str, why: str) -> None:
    job = _line(why, "jobid")
    logs = _line(why, "log").removesuffix(" (check log file(s) for error details)").split(", ")
    failed = told.failed.setdefault(logs[0] or f"job {job}", Failed(rule, told.wildcards.get(job, {}), logs))
    failed.blocks, failed.job = failed.blocks + 1, job
    failed.logs = logs  # on a cluster every try has another


def _command(told: Told, command: str) -> None:
    found = re.search(r"scripts/(\w+)\.py (.*) > (\S+) 2>&1$", command)
    if not found:
        return
    script, argument, log = found.groups()
    rule, wildcards = _job(script, argument)
    failed = told.failed.setdefault(log, Failed(rule, wildcards, [log]))
    failed.commands += 1


def _job(script: str, argument: str) -> tuple[str, dict[str, str]]:
    """Rule and wildcards by a job's JSON argument; the script's name where it has none."""
    try:
        job = json.loads(shlex.split(argument)[0])
        return str(job["rule"]), {str(name): str(value) for name, value in job["wildcards"].items()}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return script, {}


def _again(told: Told, job: str) -> None:
    """Job `job` is put on again: the failed one of that id, or where ids are not told the oldest one left over."""
    left = [failed for failed in told.failed.values() if failed.job is None and failed.restarts < failed.times]
    known = [failed for failed in told.failed.values() if failed.job == job]
    for failed in (known or left)[:1]:
        failed.restarts += 1
