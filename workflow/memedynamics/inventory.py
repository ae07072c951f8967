"""What of a study is known or lies on disk already: memes by split, pairs, schedules of the methods."""

from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from memedynamics import readers
from memedynamics.config import Dataset, Study, TrainedMethod
from memedynamics.methods import EntropyMinimisation
from memedynamics.plan import Schedule, schedule


class Memes(NamedTuple):
    """How many memes a split has, and who says so: prepared, on disk, published, or not found."""

    count: int
    known: str


def memes(study: Study, root: Path, splits: list[tuple[str, str]]) -> dict[tuple[str, str], Memes]:
    """Memes by (dataset, split): of the prepared tables, else of the files on disk, else as published, else 0."""
    return {(name, split): _memes(study.datasets[name], root / "data" / name, split) for name, split in splits}


def _memes(source: Dataset, prepared: Path, split: str) -> Memes:
    if (prepared / f"{split}.parquet").exists():
        return Memes(rows(prepared / f"{split}.parquet"), "prepared")
    if count := readers.expected_rows(source).get(split):
        return Memes(count, "on disk" if source.root else "drawn")
    count = readers.published(source).get(split, (0, None))[0]
    return Memes(count, "published" if count else "not found")


def rows(*tables: Path) -> int:
    """Rows of Parquet files, from their footers."""
    return sum(pq.read_metadata(table).num_rows for table in tables)


def pairs(root: Path) -> int | None:
    """Preference pairs where they have been built, else None."""
    table = root / "preferences.parquet"
    return rows(table) if table.exists() else None


def correct_samples(study: Study, root: Path) -> dict[str, int] | None:
    """Samples that `rft` trains on by train_prompts (paired, all), where the pairs have been built, else None."""
    pairs, samples = root / "preferences.parquet", root / f"samples/base/{study.in_domain}/train.parquet"
    if not (pairs.exists() and samples.exists()):
        return None
    good = pq.read_table(samples, columns=["id"], filters=[("correct", "=", True), ("format_ok", "=", True)])
    paired = set(pq.read_table(pairs, columns=["id"])["id"].to_pylist())
    return {"paired": sum(name in paired for name in good["id"].to_pylist()), "all": len(good)}


def schedules(
    study: Study,
    defaults: dict[str, dict[str, object]],
    train: int,
    paired: int | None,
    correct: dict[str, int] | None = None,
) -> dict[str, Schedule]:
    """The schedule of every trained method; `defaults` are the trainers' own arguments by kind.

    Until the pairs are built (`paired` is None) every train prompt counts as one: then steps are an upper bound.
    `correct` is how many samples `rft` trains on by train_prompts; without it, all samples of those prompts count.
    """
    memes = {"paired": train if paired is None else paired, "all": train}
    samples = correct or {prompts: count * study.sampling.num_samples for prompts, count in memes.items()}
    found = {}
    for name, method in study.methods.items():
        if isinstance(method, TrainedMethod):
            args = {**defaults[method.kind], **study.training, **method.args}
            examples = (samples if method.kind == "rft" else memes)[method.prompts_of(study.train_prompts)]
            examples *= 2 if method.kind == "kto" else 1  # its rows are single responses
            if isinstance(method, EntropyMinimisation) and method.prompts:
                examples = min(examples, method.prompts)
            found[name] = _schedule(args, examples, tuple(study.milestones))
    return found


def _schedule(args: dict, examples: int, fractions: tuple[float, ...]) -> Schedule:
    batch = int(args["per_device_train_batch_size"])
    drawn = int(args.get("generation_batch_size") or 0) // batch
    return schedule(
        examples,
        batch=batch,
        accumulation=int(args["gradient_accumulation_steps"]),
        epochs=float(args["num_train_epochs"]),
        max_steps=int(args["max_steps"]),
        warmup=float(args["warmup_steps"] or 0),
        group=int(args.get("num_generations") or 1),
        rounds=int(args.get("steps_per_generation") or 0) or drawn or None,
        iterations=int(args.get("num_iterations") or 1),
        fractions=fractions,
    )
