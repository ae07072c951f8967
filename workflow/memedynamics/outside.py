"""Files from outside as rules see them: Snakemake goes by times, which may lie, so contents count too."""

import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from memedynamics import checksums
from memedynamics.errors import InputError

TOLERANCE = 10.0  # seconds that clocks of two machines may differ by
READ_BELOW = 64 << 20  # bytes; of larger files the size counts, as every call of Snakemake looks


def refuse_future(paths: Iterable[Path], now: float | None = None) -> None:
    """Raise InputError naming the first of `paths` whose time lies ahead of `now`, by default this machine's clock.

    What is made of it would be older than it: Snakemake refuses that once the work is done, and every time anew.
    """
    latest = (time.time() if now is None else now) + TOLERANCE
    for path in paths:
        if path.exists() and (found := path.stat().st_mtime) > latest:
            when = datetime.fromtimestamp(found).isoformat(" ", "seconds")
            raise InputError(f"{path}: its time, {when}, lies ahead of the clock; set the clock right or touch it")


def contents(paths: Iterable[Path]) -> list[str]:
    """What each file holds: a file that is replaced by one with an older time is another all the same.

    Of those that are here: what a storage holds, its own records tell apart.
    """
    return [_content(path) for path in paths if path.is_file()]


def _content(path: Path) -> str:
    size = path.stat().st_size
    return f"{size} bytes" if size >= READ_BELOW else checksums.crc32(path)
