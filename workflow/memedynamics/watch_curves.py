"""The curves of a study's trainings, finished and running, from what they wrote down."""

import math
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from memedynamics import live
from memedynamics.watch_jobs import files

# TRL's names, in the order in which they are drawn.
METRICS = {
    "loss": "loss",
    "reward": "reward",
    "kl": "KL to the reference (nat)",
    "rewards/margins": "reward margin of the pair",
    "rewards/accuracies": "pairs in the right order",
    "entropy": "entropy (nat/token)",
    "mean_token_accuracy": "accuracy per token",
    "completions/mean_length": "length (tokens)",
    "grad_norm": "norm of the gradient",
}
POINTS = 400  # of a curve, at most: a page's width
REWARD_MODEL = "reward model"


class Curves(NamedTuple):
    """One run: its method, its seed, steps so far and in all, its metrics as (steps, values), seconds a step."""

    method: str
    seed: int
    job: str | None  # rule and wildcards' values of the training, where it has not finished
    step: int
    steps: int
    metrics: dict[str, tuple[list[int], list[float | None]]]
    pace: float | None


def found(folder: Path) -> list[Curves]:
    """The runs of the study in `folder`: those with rows of a training under way, else those with a history."""
    begun = {(curves.method, curves.seed): curves for curves in _begun(folder)}
    ended = {(curves.method, curves.seed): curves for curves in _ended(folder)}
    return [curves for curves in (ended | begun).values() if curves.metrics]


def _begun(folder: Path) -> list[Curves]:
    """From the newest rows of each training's work folder, which is cleared away when it ends."""
    newest: dict[Path, tuple[float, Path]] = {}
    for file in files(folder / ".work", live.FILE):
        try:
            newest[file.parents[1]] = max(newest.get(file.parents[1], (0.0, file)), (file.stat().st_mtime, file))
        except OSError:  # it ended meanwhile
            continue
    told = ((job.relative_to(folder / ".work"), _rows(file, stamp)) for job, (stamp, file) in newest.items())
    return [_running(job, rows) for job, rows in told if rows]


@lru_cache(maxsize=256)
def _rows(file: Path, stamp: float) -> list[dict[str, float]]:
    try:
        return live.rows(file)
    except OSError:
        return []


def _running(job: Path, rows: list[dict[str, float]]) -> Curves:
    names = job.parts[1:]
    method, seed = (names[0], int(names[1])) if len(names) > 1 else (REWARD_MODEL, 0)
    series = {metric: [(row["step"], row[metric]) for row in rows if metric in row] for metric in METRICS}
    steps = rows[-1]["step"] - rows[0]["step"]
    pace = (rows[-1]["at"] - rows[0]["at"]) / steps if steps else None
    metrics = {metric: _thinned(points) for metric, points in series.items() if points}
    return Curves(method, seed, str(job), int(rows[-1]["step"]), int(rows[-1]["max_steps"]), metrics, pace)


def _ended(folder: Path) -> list[Curves]:
    files = [*folder.glob("runs/*/seed*/history.parquet"), *folder.glob("reward_model/history.parquet")]
    return [curves for file in files if (curves := _read(file))]


def _read(file: Path) -> Curves | None:
    try:
        return _history(file, file.stat().st_mtime)
    except (OSError, pa.ArrowInvalid, KeyError):  # being replaced
        return None


@lru_cache(maxsize=256)
def _history(file: Path, stamp: float) -> Curves:
    table = pq.read_table(file, columns=["step", "metric", "value"])
    rows = list(zip(*(table[name].to_pylist() for name in ("step", "metric", "value")), strict=True))
    series = {metric: [(step, value) for step, name, value in rows if name == metric] for metric in METRICS}
    last = max((step for step, _, _ in rows), default=0)
    seed = re.fullmatch(r"seed(\d+)", file.parent.name)
    method = file.parents[1].name if seed else REWARD_MODEL
    metrics = {metric: _thinned(points) for metric, points in series.items() if points}
    return Curves(method, int(seed[1]) if seed else 0, None, last, last, metrics, None)


def _thinned(points: list[tuple[float, float]]) -> tuple[list[int], list[float | None]]:
    """At most POINTS of `points` and the last one, as steps and values; a value that is not finite is None."""
    every = math.ceil(len(points) / POINTS)
    kept = [*points[:-1:every], points[-1]]
    return [int(step) for step, _ in kept], [value if math.isfinite(value) else None for _, value in kept]
