"""What of a study is known or lies on disk already: memes by split, pairs, schedules of the methods."""

from pathlib import Path

import pyarrow.parquet as pq

from memedynamics import readers
from memedynamics.config import Study, TrainedMethod
from memedynamics.plan import Schedule, schedule


def memes(study: Study, root: Path, splits: list[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Memes by (dataset, split): of the prepared tables, else of the files on disk, else as published, else 0."""
    return {(name, split): _memes(study, root, name, split) for name, split in splits}


def _memes(study: Study, root: Path, name: str, split: str) -> int:
    table = root / "data" / name / f"{split}.parquet"
    if table.exists():
        return rows(table)
    source = study.datasets[name]
    return readers.expected_rows(source).get(split) or readers.published(source).get(split, (0, None))[0]


def rows(*tables: Path) -> int:
    """Rows of Parquet files, from their footers."""
    return sum(pq.read_metadata(table).num_rows for table in tables)


def pairs(root: Path, train: int) -> int:
    """Preference pairs where they have been built; before that at most one a train prompt."""
    table = root / "preferences.parquet"
    return rows(table) if table.exists() else train


def schedules(study: Study, defaults: dict[str, dict[str, object]], train: int, paired: int) -> dict[str, Schedule]:
    """The schedule of every trained method; `defaults` are the trainers' own arguments by kind."""
    found = {}
    for name, method in study.methods.items():
        if isinstance(method, TrainedMethod):
            args = {**defaults[method.kind], **study.training, **method.args}
            every = (method.train_prompts or study.train_prompts) == "all" and method.kind == "grpo"
            found[name] = _schedule(args, train if every else paired, tuple(study.milestones))
    return found


def _schedule(args: dict, examples: int, fractions: tuple[float, ...]) -> Schedule:
    return schedule(
        examples,
        batch=int(args["per_device_train_batch_size"]),
        accumulation=int(args["gradient_accumulation_steps"]),
        epochs=float(args["num_train_epochs"]),
        max_steps=int(args["max_steps"]),
        warmup=float(args["warmup_steps"] or 0),
        group=int(args.get("num_generations") or 1),
        fractions=fractions,
    )
