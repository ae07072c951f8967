"""MultiOFF (Suryawanshi et al., 2020): three comma-separated tables; the benign label is misspelt `Non-offensiv`."""

from collections.abc import Iterator
from pathlib import Path

from memedynamics.config import Dataset
from memedynamics.readers.common import Rejected, Row, delimited, first_existing, parse, picture

SPLITS = {
    "train": "Training_meme_dataset.csv",
    "val": "Validation_meme_dataset.csv",
    "test": "Testing_meme_dataset.csv",
}
PUBLISHED = {SPLITS["train"]: (445, None), SPLITS["val"]: (149, None), SPLITS["test"]: (149, None)}
LABELS = {"offensive": 1, "non-offensiv": 0, "non-offensive": 0}


def files(source: Dataset, name: str) -> list[Path]:
    """The table of split `name`."""
    return [first_existing(source.root, name, f"Split Dataset/{name}")]


def count(source: Dataset, name: str) -> int | None:
    """Rows of split `name`; sentences run over several lines."""
    (path,) = files(source, name)
    return len(delimited(path, ",")) if path.is_file() else None


def rows(source: Dataset, split: str, name: str) -> Iterator[Row]:
    """The raw rows of split `name`."""
    (path,) = files(source, name)

    def read(record: dict) -> dict[str, object]:
        return {
            "id": record["image_name"],
            "image": picture(source.root, record["image_name"], "Labelled Images", "images", "img", ""),
            "text": record["sentence"],
            "label": _label(record["label"]),
        }

    table = delimited(path, ",", ["image_name", "sentence", "label"])
    return parse(split, path, table, read, "image_name")


def _label(value: str) -> int:
    if value.strip().lower() not in LABELS:
        raise Rejected(f"label is neither offensive nor Non-offensiv: {value!r}")
    return LABELS[value.strip().lower()]
