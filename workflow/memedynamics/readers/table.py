"""Your own memes: one `.jsonl`, `.csv` or `.tsv` a split, columns named by `columns`, label values by `labels`.

Pictures are looked for beside the file and under the dataset's folder. A cell of groups separates them by `;`.
"""

from collections.abc import Iterator
from pathlib import Path

from memedynamics.config import Dataset
from memedynamics.readers.common import Record, Rejected, Row, delimited, first_existing, json_lines, parse, picture

SPLITS = {"train": "train", "val": "val", "test": "test"}
PUBLISHED: dict[str, tuple[int, int | None]] = {}
SEPARATORS = {".csv": ",", ".tsv": "\t"}


def files(source: Dataset, name: str) -> list[Path]:
    """The file of split `name`, with or without its ending."""
    return [first_existing(source.root, *([name] if Path(name).suffix else []), *_endings(name))]


def _endings(name: str) -> list[str]:
    return [f"{name}{ending}" for ending in (".jsonl", *SEPARATORS)]


def count(source: Dataset, name: str) -> int | None:
    """Rows of split `name`."""
    (path,) = files(source, name)
    return sum(1 for _ in _records(path, [])) if path.is_file() else None


def rows(source: Dataset, split: str, name: str) -> Iterator[Row]:
    """The raw rows of split `name`."""
    (path,) = files(source, name)
    columns = columns_of(source)
    beside = str(path.parent.relative_to(source.root)) if path.is_relative_to(source.root) else ""

    def read(record: dict) -> dict[str, object]:
        return {
            "id": record[columns["id"]],
            "image": picture(source.root, record[columns["image"]], beside, ""),
            "text": record[columns["text"]],
            "label": labelled(source, record[columns["label"]]),
            "groups": listed(record.get(columns["groups"])),
        }

    required = [column for key, column in columns.items() if key != "groups" or "groups" in source.columns]
    return parse(split, path, _records(path, required), read, columns["id"])


def _records(path: Path, columns: list[str]) -> Iterator[Record] | list[Record]:
    separator = SEPARATORS.get(path.suffix.lower())
    return json_lines(path) if separator is None else delimited(path, separator, columns)


def columns_of(source: Dataset) -> dict[str, str]:
    """The column of each field: as configured, else of the field's own name."""
    return {key: source.columns.get(key, key) for key in ("id", "image", "text", "label", "groups")}


def labelled(source: Dataset, value: object) -> object:
    """The label that `datasets.<name>.labels` gives to raw `value`; `value` itself where none are configured."""
    if source.labels and str(value) not in source.labels:
        raise Rejected(f"label is not among the configured labels: {value!r}")
    return source.labels[str(value)] if source.labels else value


def listed(value: object) -> tuple[str, ...]:
    """Groups from a list, or from text that separates them by `;`; nothing else names groups."""
    parts = value.split(";") if isinstance(value, str) else value if isinstance(value, list) else ()
    return tuple(str(part).strip() for part in parts if str(part).strip())
