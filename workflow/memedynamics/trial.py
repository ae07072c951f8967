"""Reading a finished trial: what every rule did and how long its jobs took."""

import json
from pathlib import Path

import polars as pl

from memedynamics import inventory
from memedynamics.config import Study, TrainedMethod
from memedynamics.costs import Cost, measured
from memedynamics.methods import rule_of

# Distinct rows of these columns are an extraction's units of work.
UNITS = {
    "attention": ["fraction", "policy", "dataset", "split", "id", "perturbation"],
    "sharpe": ["fraction", "dataset", "split", "id"],
    "gradients": ["fraction", "id"],
    "spectrum": ["fraction"],
}


def measure(root: Path, study: Study, batches: dict[str, int]) -> dict[str, Cost]:
    """Cost of every rule in the trial under `root`; `batches` are the methods' effective batch sizes."""
    samples = sorted((root / "samples/base").rglob("*.parquet"))
    own = [file for file in sorted((root / "samples").rglob("*.parquet")) if file not in samples]
    trained = [name for name, method in study.methods.items() if isinstance(method, TrainedMethod)]
    found = {
        "prepare_dataset": measured(
            _timings(root, "prepare_dataset"),
            inventory.rows(*(f for name in ("train", "val", "test") for f in (root / "data").rglob(f"{name}.parquet"))),
            size=_size(root / "data"),
        ),
        "sample_base": measured(_timings(root, "sample_base"), inventory.rows(*samples), *_tokens_and_size(samples)),
        "preflight": measured(_timings(root, "preflight"), len(trained)),
        "sample_policy": measured(_timings(root, "sample_policy"), inventory.rows(*own), *_tokens_and_size(own)),
        "score": _scoring(root),
        **{f"extract_{name}": _extraction(root, name) for name in UNITS},
    }
    found |= {rule: measured(_timings(root, rule), units) for rule, units in _done_by_others(root).items() if units}
    return found | {f"train {name}": _training(root, name, study, batches[name]) for name in trained}


def _timings(root: Path, rule: str, method: str = "") -> list[Path]:
    return sorted((root / "benchmarks/timing" / rule / method).rglob("*.json"))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _tokens_and_size(samples: list[Path]) -> tuple[int, int]:
    tokens = pl.scan_parquet(samples).select(pl.col("token_ids").list.len().sum()).collect().item() if samples else 0
    return tokens, sum(file.stat().st_size for file in samples)


def _scoring(root: Path) -> Cost:
    folders = [root / "traces", root / "responses"]
    traces, responses = (sorted(folder.rglob("*.parquet")) for folder in folders)
    size = sum(map(_size, folders))
    return measured(_timings(root, "score"), inventory.rows(*responses), inventory.rows(*traces), size)


def _extraction(root: Path, name: str) -> Cost:
    timings = _timings(root, f"extract_{name}")
    return measured(timings, _done(root, name), size=_size(root / "extracts" / name))


def _done(root: Path, name: str) -> int:
    files = sorted((root / "extracts" / name).rglob("*.parquet"))
    return sum(pl.scan_parquet(file).select(UNITS[name]).drop_nulls().unique().collect().height for file in files)


def _done_by_others(root: Path) -> dict[str, int]:
    """Units of work of the rules that only some studies have."""

    def count(pattern: str, *keys: str) -> int:
        files = sorted(root.glob(pattern))
        frames = (pl.scan_parquet(file).select(keys).drop_nulls().unique().collect() for file in files)
        return sum(map(len, frames)) if keys else inventory.rows(*files)

    report = root / "reward_model/report.json"
    return {
        "judge": count("judge/judgements.parquet"),
        "train_reward_model": json.loads(report.read_text())["total_steps"] if report.exists() else 0,
        "score_to_parent": count("to_parent/responses/**/*.parquet"),
        "merge": len(_timings(root, "merge")),
        "extract_merge_path": count("extracts/merge_path/**/*.parquet", "way", "t", "id"),
    }


def _training(root: Path, name: str, study: Study, batch: int) -> Cost:
    runs = [json.loads(file.read_text()) for file in sorted((root / "runs" / name).glob("*/run.json"))]
    units = sum(run["total_steps"] * batch for run in runs)
    tokens = sum(run["tokens"] for run in runs)
    timings = _timings(root, rule_of(study.methods[name]), name)
    return measured(timings, units, tokens, job_size=_size(root / "runs" / name))
