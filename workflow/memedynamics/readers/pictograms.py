"""The embedded demo: memes drawn on the spot, the number of them being what `splits` gives."""

from collections.abc import Iterator
from pathlib import Path

from memedynamics.config import Dataset
from memedynamics.errors import InputError
from memedynamics.readers.common import Row

SPLITS = {"train": "600", "val": "200", "test": "200"}
PUBLISHED: dict[str, tuple[int, int | None]] = {}


def files(source: Dataset, name: str) -> list[Path]:
    """None: the memes are drawn."""
    return []


def count(source: Dataset, name: str) -> int:
    """The number of memes asked for."""
    if not name.isdecimal():
        raise InputError(f"datasets.<name>.splits: {name!r} is not a number of pictograms")
    return int(name)


def rows(source: Dataset, split: str, name: str, pictures: Path) -> Iterator[Row]:
    """Draw the memes of `split` into `pictures`."""
    # Pillow is needed by nobody who only lists files.
    from memedynamics import pictograms

    for number, meme in enumerate(pictograms.rows(split, count(source, name), source.style, pictures), 1):
        meme["groups"] = tuple(meme["groups"])
        yield Row(split, Path("pictograms"), number, **meme)
