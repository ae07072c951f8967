"""What all readers share: a raw row, the files it comes from, and how one bad row is told from a bad file."""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from memedynamics.errors import InputError


class Row(NamedTuple):
    """One raw row as it stands in its source, or the reason why it could not be read.

    `image` is a path that nobody has checked yet, or an encoded picture; `label` is the raw value.
    """

    split: str
    source: Path
    number: int  # 1-based: line of a JSON Lines file, record of a table (its header is record 1)
    id: object = None
    image: Path | bytes | None = None
    text: object = None
    label: object = None
    groups: tuple[str, ...] = ()
    reason: str | None = None


class Rejected(ValueError):
    """One row is unusable; the message is 'kind' or 'kind: detail'."""


Record = tuple[int, dict | str]  # number in its file; the fields, or the reason why there are none


def parse(
    split: str, path: Path, records: Iterable[Record], read: Callable[[dict], dict[str, object]], key: str
) -> Iterator[Row]:
    """A row for each of `records`, read by `read`; `key` is the field that identifies a row that cannot be read.

    Raises InputError when every record lacks the same field: then the file, not a row, is wrong.
    """
    total, lacking = 0, Counter()
    for number, record in records:
        row = Row(split, path, number)
        total += 1
        try:
            if isinstance(record, str):
                raise Rejected(record)
            row = row._replace(id=record.get(key))
            row = row._replace(**read(record))
        except KeyError as error:
            lacking[error.args[0]] += 1
            row = row._replace(reason=f"no field {error.args[0]!r}")
        except Rejected as error:
            row = row._replace(reason=str(error))
        yield row
    for field in (name for name, count in lacking.items() if count == total):
        raise InputError(f"{path}: no row has the field {field!r}; is this the right file for split {split}?")


def opened(path: Path) -> bytes:
    """The bytes of annotation file `path`; raises InputError that says what to do when there is no such file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: no such file; put it there, or name the file of each split you have under datasets.<name>.splits"
        ) from error


def json_lines(path: Path) -> Iterator[Record]:
    """The objects of a JSON Lines file by line; blank lines are skipped."""
    for number, line in enumerate(opened(path).splitlines(), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            yield number, record if isinstance(record, dict) else "line is not a JSON object"


def delimited(path: Path, separator: str, columns: Iterable[str] = (), names: list[str] | None = None) -> list[Record]:
    """The records of a table with a header (or with the given `names`, without one), all values strings.

    Raises InputError when one of `columns` is missing or the table's quotes do not match.
    """
    reader = csv.DictReader(io.StringIO(_decoded(path), newline=""), names, delimiter=separator, restval=None)
    if missing := [column for column in columns if column not in (reader.fieldnames or [])]:
        found = ", ".join(reader.fieldnames or []) or "nothing"
        raise InputError(f"{path}: no column {missing[0]!r}, only {found}; map it under datasets.<name>.columns")
    try:
        return [(number, _whole(record)) for number, record in enumerate(reader, 1 if names else 2)]
    except csv.Error as error:
        raise InputError(f"{path}: after line {reader.line_num}: {error}; repair its quotes") from error


def _whole(record: dict) -> dict | str:
    """`record`, or the reason why it is none: DictReader files surplus values under None and pads with None."""
    return "row has too many or too few columns" if None in record or None in record.values() else record


def _decoded(path: Path) -> str:
    data = opened(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Some releases were saved by a spreadsheet in Windows' code page.
        return data.decode("cp1252", errors="replace")


def count_lines(path: Path) -> int | None:
    """Non-blank lines of `path`; None when there is no such file."""
    return sum(1 for line in path.read_bytes().splitlines() if line.strip()) if path.is_file() else None


def first_existing(root: Path, *names: str) -> Path:
    """The first of `names` that exists under `root`, else where the first of them would be."""
    return next((root / name for name in names if os.path.exists(root / name)), root / names[0])


def names(value: object, what: str) -> list[str]:
    """`value`, which must be a list of strings; `what` is the field it stands in."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise Rejected(f"{what} is not a list of names: {value!r}")
    return value


def picture(root: Path, name: object, *folders: str) -> Path:
    """Where picture `name` lies: in the first of `folders` under `root` that has it. The path is still unchecked."""
    if not isinstance(name, str) or not name.strip():
        raise Rejected("no picture named")
    return first_existing(root, *(os.path.join(folder, name.strip()) for folder in folders))
