"""From raw rows to the tables of a dataset: checked, decoded in parallel, in order, with a reason for every loss."""

import hashlib
import heapq
import math
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path

import polars as pl

from memedynamics import images, readers
from memedynamics.config import Dataset
from memedynamics.errors import InputError
from memedynamics.readers.checks import checked
from memedynamics.readers.common import Row

AHEAD = 128  # encoded pictures that may wait in memory

DATA = {
    "dataset": pl.String,
    "split": pl.String,
    "id": pl.String,
    "image": pl.String,
    "image_sha256": pl.String,
    "width": pl.Int32,
    "height": pl.Int32,
    "text": pl.String,
    "label": pl.Int8,
    "groups": pl.List(pl.String),
}
REJECTED = {
    "dataset": pl.String,
    "split": pl.String,
    "row": pl.Int64,
    "id": pl.String,
    "source": pl.String,
    "reason": pl.String,
}


def pool(threads: int) -> Executor:
    """Processes that decode pictures, not forked from this one, whose other threads may hold locks."""
    context = get_context("forkserver")
    # Imported once by the server, instead of by each process anew.
    context.set_forkserver_preload(["memedynamics.intake", "memedynamics.job"])
    return ProcessPoolExecutor(threads, context, _begin, (os.getcwd(),))


def _begin(folder: str) -> None:
    """In each such process: work in `folder`, not where the interpreter began, and end with the one that wants it."""
    os.chdir(folder)
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    # One that is killed would leave it waiting for work forever.
    parent.join()
    os._exit(1)


def rows(source: Dataset, split: str, pictures: Path, workers: Executor, limit: int | None = None) -> Iterator[Row]:
    """The rows of `split` in the order of their source, `image` a `Picture`, or with the reason why not.

    With `limit` all but that many good rows, stratified by label, come without picture. Pictures are decoded by
    `workers`, a few at a time: memory does not grow with the dataset.
    """
    found = checked(readers.rows(source, split, pictures), source.root or pictures)
    return _decoded(found if limit is None else limited(found, limit), pictures, workers)


def _decoded(found: Iterable[Row], pictures: Path, workers: Executor) -> Iterator[Row]:
    """`found` in order, their pictures decoded up to `AHEAD` rows ahead of the one that is waited for."""
    waiting: deque[tuple[Row, Future | None]] = deque()
    for row in found:
        future = None if row.reason or row.image is None else workers.submit(images.prepare, row.image, pictures)
        waiting.append((row._replace(image=None), future))
        if len(waiting) > AHEAD:
            yield _settled(*waiting.popleft())
    while waiting:
        yield _settled(*waiting.popleft())


def _settled(row: Row, future: Future | None) -> Row:
    if future is None:
        return row
    picture = future.result()
    return row._replace(reason=picture) if isinstance(picture, str) else row._replace(image=picture)


def limited(found: Iterable[Row], limit: int) -> list[Row]:
    """All of `found`, but the picture of only `limit` good rows: as many of each label as its share, at least one.

    Which ones is fixed by their ids: those whose SHA-256 is lowest. Holds 2 × `limit` pictures at most.
    """
    rows: list[Row] = []
    lowest: dict[int, list[tuple[int, int, Path | bytes]]] = {0: [], 1: []}
    counts = {0: 0, 1: 0}
    for position, row in enumerate(found):
        rows.append(row._replace(image=None))
        if row.reason is None:
            counts[row.label] += 1
            heap = lowest[row.label]
            rank = -int(hashlib.sha256(row.id.encode()).hexdigest(), 16)
            (heapq.heappush if len(heap) < limit else heapq.heappushpop)(heap, (rank, position, row.image))
    for label, keep in _quota(counts, limit).items():
        for _, position, image in heapq.nlargest(keep, lowest[label]):
            rows[position] = rows[position]._replace(image=image)
    return rows


def _quota(counts: dict[int, int], limit: int) -> dict[int, int]:
    """Rows to keep of each label."""
    total = sum(counts.values())
    if total <= limit or not all(counts.values()):
        return {label: min(count, limit) for label, count in counts.items()}
    hateful = min(max(math.floor(limit * counts[1] / total + 0.5), 1), limit - 1)
    return {1: hateful, 0: limit - hateful}


def frames(name: str, source: Dataset, found: list[Row]) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """The `data` table of each split (empty for one that is not configured) and the `rejected` table.

    Raises InputError when too many rows are bad, or a configured split is empty or of one class.
    """
    bad = [row for row in found if row.reason is not None]
    if len(bad) > source.max_bad_share * len(found):
        first = "; ".join(f"{row.source} row {row.number}: {row.reason}" for row in bad[:3])
        raise InputError(
            f"dataset {name}: {len(bad)} of {len(found)} rows are bad, more than max_bad_share {source.max_bad_share} "
            f"allows: {first}; repair them or raise datasets.{name}.max_bad_share"
        )
    good = [row for row in found if row.reason is None and row.image is not None]
    tables = {split: _data(name, [row for row in good if row.split == split]) for split in ("train", "val", "test")}
    for split, value in readers.splits(source).items():
        _usable(name, split, value, tables[split])
    return tables, pl.DataFrame([_rejection(name, row) for row in bad], REJECTED, orient="row")


def _usable(name: str, split: str, value: str, table: pl.DataFrame) -> None:
    if table.is_empty():
        raise InputError(
            f"dataset {name}: split {split} ({value}) has no usable row; leave it out of splits or fill it"
        )
    if table["label"].n_unique() == 1:
        only = table["label"][0]
        raise InputError(
            f"dataset {name}: all {len(table)} rows of split {split} ({value}) have label {only}; both are needed: "
            "check the labels' column and mapping"
        )


def _data(name: str, good: list[Row]) -> pl.DataFrame:
    values = [
        (
            name,
            row.split,
            row.id,
            portable(row.image.path),
            row.image.sha256,
            row.image.width,
            row.image.height,
            row.text,
            row.label,
            list(row.groups),
        )
        for row in good
    ]
    return pl.DataFrame(values, DATA, orient="row")


def _rejection(name: str, row: Row) -> tuple[str, str, int, str | None, str, str]:
    label = None if row.id is None else str(row.id)
    return name, row.split, row.number, label, portable(row.source), row.reason


def portable(path: Path) -> str:
    """`path` relative to the working directory where it lies inside it, so that a study can be moved as a whole."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)
