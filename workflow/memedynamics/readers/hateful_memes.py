"""Facebook Hateful Memes (Kiela et al., 2020): `img/*.png` and one JSON Lines file a split."""

from collections.abc import Iterator
from pathlib import Path

from memedynamics.config import Dataset
from memedynamics.readers.common import Row, count_lines, first_existing, json_lines, parse, picture

SPLITS = {"train": "train", "val": "dev_seen", "test": "test_seen"}
# Rows and hateful rows by file.
PUBLISHED = {
    "train": (8500, 3019),
    "dev_seen": (500, 247),
    "dev_unseen": (540, 199),
    "test_seen": (1000, 490),
    "test_unseen": (2000, 750),
}


def files(source: Dataset, name: str) -> list[Path]:
    """The file of split `name`, with or without its ending."""
    return [first_existing(source.root, f"{name.removesuffix('.jsonl')}.jsonl")]


def count(source: Dataset, name: str) -> int | None:
    """Rows of split `name`, unread."""
    return count_lines(files(source, name)[0])


def rows(source: Dataset, split: str, name: str) -> Iterator[Row]:
    """The raw rows of split `name`."""
    (path,) = files(source, name)

    def read(record: dict) -> dict[str, object]:
        image = picture(source.root, record["img"], "", "img")
        return {"id": padded(record["id"]), "image": image, "text": record["text"], "label": record["label"]}

    return parse(split, path, json_lines(path), read, "id")


def padded(value: object) -> object:
    """An id as mirrors write it, five digits; the first release has integers."""
    return f"{value:05d}" if isinstance(value, int) and not isinstance(value, bool) else value
