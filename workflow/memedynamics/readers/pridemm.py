"""PrideMM (Shah et al., EMNLP 2024): one comma-separated table with a `split` column; `groups` holds the target."""

from collections.abc import Iterator
from pathlib import Path

from memedynamics.config import Dataset
from memedynamics.readers.common import Record, Row, delimited, first_existing, parse, picture

SPLITS = {"train": "train", "val": "val", "test": "test"}
PUBLISHED: dict[str, tuple[int, int | None]] = {}
# Written as floats where a column has gaps: benign memes have no target.
TARGETS = {"0": "undirected", "1": "individual", "2": "community", "3": "organization"}


def files(source: Dataset, name: str) -> list[Path]:
    """The one table."""
    return [first_existing(source.root, "PrideMM.csv", "PrideMM/PrideMM.csv")]


def count(source: Dataset, name: str) -> int | None:
    """Rows of split `name`."""
    (path,) = files(source, name)
    return sum(1 for _ in _records(path, name)) if path.is_file() else None


def rows(source: Dataset, split: str, name: str) -> Iterator[Row]:
    """The raw rows of split `name`."""
    (path,) = files(source, name)
    folder = str(path.parent.relative_to(source.root))

    def read(record: dict) -> dict[str, object]:
        target = TARGETS.get(record.get("target", "").removesuffix(".0"))
        return {
            "id": record["name"],
            "image": picture(source.root, record["name"], f"{folder}/Images", f"{folder}/images", folder),
            "text": record["text"],
            "label": record["hate"],
            "groups": (target,) if target else (),
        }

    return parse(split, path, _records(path, name), read, "name")


def _records(path: Path, name: str) -> list[Record]:
    """The records of split `name`; one without a readable split is reported with the first split asked for."""
    table = delimited(path, ",", ["name", "text", "hate", "split"])
    return [(number, record) for number, record in table if isinstance(record, str) or record["split"] == name]
