"""MMHS150K (Gomez et al., WACV 2020): tweets with a picture, three annotators each, hateful by majority.

`text` is the tweet, followed by the text read off the picture (`img_txt/<id>.json`) where there is any; `groups`
names whom any annotator of a hateful tweet saw attacked.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from memedynamics.config import Dataset
from memedynamics.errors import InputError
from memedynamics.readers.common import Record, Rejected, Row, count_lines, opened, parse, picture

SPLITS = {"train": "train", "val": "val", "test": "test"}
PUBLISHED = {"train": (134823, None), "val": (5000, None), "test": (10000, None)}
KINDS = ["", "race", "sex", "sexual orientation", "religion", "other"]


def files(source: Dataset, name: str) -> list[Path]:
    """The ids of split `name`, and the tweets of all splits."""
    return [source.root / "splits" / f"{name}_ids.txt", source.root / "MMHS150K_GT.json"]


def count(source: Dataset, name: str) -> int | None:
    """Rows of split `name`, unread."""
    return count_lines(files(source, name)[0])


def rows(source: Dataset, split: str, name: str) -> Iterator[Row]:
    """The raw rows of split `name`, numbered by the line of the id."""
    ids, tweets = files(source, name)

    def read(record: dict) -> dict[str, object]:
        votes = _votes(record["labels"])
        label = int(sum(vote > 0 for vote in votes) >= 2)
        seen = _read_off(source.root / "img_txt" / f"{record['id']}.json")
        return {
            "id": record["id"],
            "image": picture(source.root, f"{record['id']}.jpg", "img_resized"),
            "text": "\n".join(part for part in (record["tweet_text"], seen) if part),
            "label": label,
            "groups": tuple(KINDS[vote] for vote in votes if vote) if label else (),
        }

    return parse(split, ids, _records(ids, tweets), read, "id")


def _records(ids: Path, tweets: Path) -> Iterator[Record]:
    try:
        known = json.loads(opened(tweets))
    except ValueError as error:
        raise InputError(f"{tweets}: not JSON ({error}); download it again") from error
    for number, line in enumerate(opened(ids).decode().splitlines(), 1):
        if name := line.strip():
            tweet = known.get(name)
            yield number, {"id": name} | tweet if isinstance(tweet, dict) else f"id is not in {tweets.name}: {name}"


def _votes(labels: object) -> list[int]:
    whole = isinstance(labels, list) and len(labels) == 3 and all(isinstance(vote, int) for vote in labels)
    if not whole or not set(labels) <= set(range(len(KINDS))):
        raise Rejected(f"labels are not three of 0 to 5: {labels!r}")
    return labels


def _read_off(path: Path) -> str:
    """The text in the picture; most pictures have no such file, and its absence is no fault."""
    try:
        return str(json.loads(path.read_bytes())["img_text"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
