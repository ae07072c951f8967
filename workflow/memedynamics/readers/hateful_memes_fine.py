"""Fine-grained Hateful Memes (Mathias et al., 2021): the same pictures, with protected category and attack type.

JSON Lines in files that end in .json; no annotated test file was published. `groups` holds the protected
categories as they are and the attack types behind `attack:`.
"""

from collections.abc import Iterator
from pathlib import Path

from memedynamics.config import Dataset
from memedynamics.readers.common import Rejected, Row, count_lines, first_existing, json_lines, names, parse, picture
from memedynamics.readers.hateful_memes import padded

SPLITS = {"train": "train", "val": "dev_seen"}
PUBLISHED = {"train": (8500, None), "dev_seen": (500, None), "dev_unseen": (540, None)}
LABELS = {"not_hateful": 0, "hateful": 1}


def files(source: Dataset, name: str) -> list[Path]:
    """The file of split `name`, with or without its ending."""
    file = f"{name.removesuffix('.json')}.json"
    return [first_existing(source.root, file, f"annotations/{file}", f"data/annotations/{file}")]


def count(source: Dataset, name: str) -> int | None:
    """Rows of split `name`, unread."""
    return count_lines(files(source, name)[0])


def rows(source: Dataset, split: str, name: str) -> Iterator[Row]:
    """The raw rows of split `name`."""
    (path,) = files(source, name)

    def read(record: dict) -> dict[str, object]:
        categories = [name for name in names(record["gold_pc"], "gold_pc") if name != "pc_empty"]
        attacks = [f"attack:{name}" for name in names(record["gold_attack"], "gold_attack") if name != "attack_empty"]
        return {
            "id": padded(record["id"]),
            "image": picture(source.root, record["img"], "", "img"),
            "text": record["text"],
            "label": _label(record["gold_hate"]),
            "groups": (*categories, *attacks),
        }

    return parse(split, path, json_lines(path), read, "id")


def _label(gold: object) -> int:
    if not isinstance(gold, list) or len(gold) != 1 or gold[0] not in LABELS:
        raise Rejected(f"label is neither hateful nor not_hateful: {gold!r}")
    return LABELS[gold[0]]
