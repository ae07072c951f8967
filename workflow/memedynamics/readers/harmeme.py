"""HarMeme (Pramanick et al., 2021): JSON Lines with a list of labels, a grade of harm and whom it targets.

A meme is harmful unless "not harmful" is among its labels: some lists hold no grade, or several. `groups` holds
the targets (individual, organization, community, society).
"""

from collections.abc import Iterator
from pathlib import Path

from memedynamics.config import Dataset
from memedynamics.readers.common import Rejected, Row, count_lines, first_existing, json_lines, names, parse, picture

SPLITS = {"train": "train", "val": "val", "test": "test"}
PUBLISHED = {"train": (3013, 1064), "val": (177, 61), "test": (354, 124)}
GRADES = {"not harmful", "somewhat harmful", "very harmful", "harmful"}


def files(source: Dataset, name: str) -> list[Path]:
    """The file of split `name`, with or without its ending."""
    file = f"{name.removesuffix('.jsonl')}.jsonl"
    return [first_existing(source.root, file, f"annotations/{file}")]


def count(source: Dataset, name: str) -> int | None:
    """Rows of split `name`, unread."""
    return count_lines(files(source, name)[0])


def rows(source: Dataset, split: str, name: str) -> Iterator[Row]:
    """The raw rows of split `name`."""
    (path,) = files(source, name)

    def read(record: dict) -> dict[str, object]:
        labels = _labels(record["labels"])
        return {
            "id": record["id"],
            "image": picture(source.root, record["image"], "images", "img", ""),
            "text": record["text"],
            "label": int("not harmful" not in labels),
            "groups": tuple(label for label in labels if label not in GRADES),
        }

    return parse(split, path, json_lines(path), read, "id")


def _labels(value: object) -> list[str]:
    if value == []:
        raise Rejected("labels are empty")
    labels = [value] if isinstance(value, str) else names(value, "labels")
    return [label.strip().lower() for label in labels]
