"""Readers, one module a format: each says which files it reads and yields raw rows; `checks` is the gate behind them.

A reader has SPLITS (its own split files), PUBLISHED (rows and hateful rows by file, where known), `files`, `count`
and `rows`. Nothing here decodes a picture or imports torch: rules list a dataset's files while the DAG is built.
"""

from collections.abc import Iterator
from pathlib import Path

from memedynamics.config import Dataset
from memedynamics.errors import InputError
from memedynamics.readers import (
    harmeme,
    hateful_memes,
    hateful_memes_fine,
    huggingface,
    mami,
    mmhs150k,
    multioff,
    pictograms,
    pridemm,
    table,
)
from memedynamics.readers.common import Row

READERS = {
    "hateful_memes": hateful_memes,
    "hateful_memes_fine": hateful_memes_fine,
    "harmeme": harmeme,
    "mami": mami,
    "pridemm": pridemm,
    "multioff": multioff,
    "mmhs150k": mmhs150k,
    "table": table,
    "huggingface": huggingface,
    "pictograms": pictograms,
}


def splits(source: Dataset) -> dict[str, str]:
    """The splits that `source` has, by name: as configured, else the format's own; the values are its files' names."""
    return {split: str(name) for split, name in (source.splits or READERS[source.reader].SPLITS).items()}


def source_files(source: Dataset) -> list[Path]:
    """The annotation files on disk that `source` is read from; no pictures.

    One that is missing is left to `rows`, which says what to do; a rule's absent input would only be named.
    """
    return [path for path in _listed(source) if path.is_file()]


def missing_files(source: Dataset) -> list[Path]:
    """The annotation files of `source` that are not there; its folder alone where that is missing."""
    if source.root is not None and not source.root.is_dir():
        return [source.root]
    return [path for path in _listed(source) if not path.exists()]


def _listed(source: Dataset) -> list[Path]:
    found = [path for name in splits(source).values() for path in READERS[source.reader].files(source, name)]
    return list(dict.fromkeys(found))


def expected_rows(source: Dataset) -> dict[str, int | None]:
    """Rows of each split as its file has them, bad ones included; None where that is not known before reading."""
    return {split: READERS[source.reader].count(source, name) for split, name in splits(source).items()}


def published(source: Dataset) -> dict[str, tuple[int, int | None]]:
    """(rows, hateful rows) that the dataset's authors report, of the splits where that is known."""
    known = READERS[source.reader].PUBLISHED
    named = {split: Path(name).stem if name not in known else name for split, name in splits(source).items()}
    return {split: known[name] for split, name in named.items() if name in known}


def rows(source: Dataset, split: str, pictures: Path) -> Iterator[Row]:
    """The raw rows of `split`, a key of `splits(source)`; a reader that draws its memes draws them into `pictures`."""
    name = splits(source)[split]
    if source.reader == "pictograms":
        return pictograms.rows(source, split, name, pictures)
    if source.root is not None and not source.root.is_dir():
        raise InputError(f"{source.root}: no such folder; set datasets.<name>.root to where {source.reader} lies")
    return READERS[source.reader].rows(source, split, name)
