"""What a training logs, row by row while it runs, for whoever watches it: nothing that a result depends on.

A row is one JSON object a line: step, max_steps, at (seconds of the epoch) and the trainer's metrics by their names.
A kill may cut the last row short, and a resumed run repeats the rows since its checkpoint; reading allows for both.
"""

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

FILE = "live.jsonl"


def begin(folder: Path) -> None:
    """Let the next row begin on a line of its own, whatever an earlier try left of its last one."""
    if (folder / FILE).exists():
        _append(folder, "\n")


def note(folder: Path, step: int, max_steps: int, logs: Mapping[str, object]) -> None:
    """Append the numbers of `logs` as the row of `step`."""
    numbers = {name: value for name, value in logs.items() if isinstance(value, int | float)}
    _append(folder, json.dumps({"step": step, "max_steps": max_steps, "at": time.time(), **numbers}) + "\n")


def _append(folder: Path, text: str) -> None:
    # A training does not end because it cannot be watched.
    with contextlib.suppress(OSError), (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(text)


def rows(file: Path) -> list[dict[str, float]]:
    """The rows of `file`, one a step, in order: without those that were cut short, or since trained anew."""
    found: list[dict[str, float]] = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        row = _row(line)
        if row is None:
            continue
        while found and found[-1]["step"] > row["step"]:
            found.pop()
        if found and found[-1]["step"] == row["step"]:
            found[-1] |= row
        else:
            found.append(row)
    return found


def _row(line: str) -> dict[str, float] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(row, dict) and all(isinstance(row.get(key), int | float) for key in ("step", "max_steps", "at"))
    return row if whole else None
