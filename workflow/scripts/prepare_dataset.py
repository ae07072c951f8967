"""Read one dataset as it lies on disk into tables of checked rows and whole pictures."""

import shutil
from pathlib import Path

from memedynamics import intake, readers, tables
from memedynamics.config import Dataset
from memedynamics.job import progress, run
from memedynamics.quality import summary


def main(
    dataset: str,
    source: Dataset,
    train: Path,
    val: Path,
    test: Path,
    rejected: Path,
    quality: Path,
    pictures: Path,
    threads: int = 1,
    limit: int | None = None,
) -> None:
    pictures.mkdir(parents=True, exist_ok=True)
    try:
        rows = []
        with intake.pool(threads) as workers:
            for split, total in readers.expected_rows(source).items():
                rows += progress(intake.rows(source, split, pictures, workers, limit), f"{dataset}/{split}", total)
        splits, bad = intake.frames(dataset, source, rows)
    except BaseException:
        shutil.rmtree(pictures)
        raise
    for split, path in {"train": train, "val": val, "test": test}.items():
        tables.write(splits[split], path, "data")
    tables.write(bad, rejected, "rejected")
    # A part of a dataset is not expected to have the whole's counts.
    published = readers.published(source) if limit is None else {}
    tables.write(summary(dataset, splits, bad, published), quality, "quality")


if __name__ == "__main__":
    run(main)
