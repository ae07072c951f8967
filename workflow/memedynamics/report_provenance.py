"""Where a study comes from, for the report: data, settings, versions, commits, and what its jobs took."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from memedynamics import environment, plain_tables, quality, tables
from memedynamics.job_costs import RuleCost, job_costs
from memedynamics.plain_tables import Plain


def provenance(
    root: Path, analyses: Sequence[Path], found: Sequence[Path], rejected: Sequence[Path], study: dict
) -> dict[str, object]:
    """What the study was made of and with: data, settings, versions, commits, and what its jobs took.

    `analyses`: their tables; `found`, `rejected`: the datasets' tables quality and rejected; `study`: the whole
    study file, defaults filled in.
    """
    counted = quality.overview(tables.read_all(found, "quality"))
    return {
        "quality": plain_tables.printed(counted),
        "quality_note": counted.caption,
        "rejected": plain_tables.printed(quality.losses(tables.read_all(rejected, "rejected"))),
        "config": yaml.safe_dump(study, sort_keys=False, allow_unicode=True, width=100),
        "versions": _versions(root / "environment.json"),
        "changes": environment.changes(root / "environment.json"),
        "commits": _commits(analyses),
        "costs": _costs(job_costs(root / "benchmarks")),
    }


def _versions(file: Path) -> Plain:
    then, now = json.loads(file.read_text()) if file.exists() else {}, environment.installed()
    rows = [[name, then.get(name, "–"), now.get(name, "–")] for name in sorted({*then, *now})]
    return plain_tables.rows(["package", "when the study began", "when this page was made"], rows)


def _commits(analyses: Sequence[Path]) -> Plain:
    """Which commit, code and settings each table comes from, by its own metadata."""
    notes = {path.stem: tables.source(path) for path in analyses}
    rows = [[name, *(str(note.get(key, "–")) for key in ("commit", "code", "config"))] for name, note in notes.items()]
    return plain_tables.rows(["table", "commit", "code", "settings"], rows)


def _costs(costs: Sequence[RuleCost]) -> Plain:
    heads = [
        "rule",
        "jobs",
        "wall time",
        "longest job",
        "processor time",
        "peak memory",
        "GPUs a job",
        "peak GPU memory",
    ]
    rows = [
        [
            cost.rule,
            str(cost.jobs),
            *map(_time, (cost.seconds, cost.longest, cost.cpu)),
            _size(cost.memory),
            str(cost.gpus or "–"),
            _size(cost.gpu_memory),
        ]
        for cost in costs
    ]
    return plain_tables.rows(heads, rows, names=1)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _size(mebibytes: float | None) -> str:
    return "–" if mebibytes is None else f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"
