"""Checksums that artefacts carry, so that bytes which changed after they were written are found before they are used.

1. A table, a JSON report and a single safetensors file carry their CRC-32 within: the eight hexadecimal digits after
   `"crc32":` in a Parquet file's metadata, as a JSON key, in a safetensors header. It is taken over the whole file with
   those digits as zeros, so headers and footers count too, and it goes wherever the file is copied.
2. A folder of weights has `checksums.json`: the CRC-32 of every other file in it, of links what they lead to.
3. CRC-32 finds any change of up to 32 neighbouring bits, and of the others all but one in 4e9. It is no signature.
"""

import json
import mmap
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from memedynamics.errors import InputError

FOLDER = "checksums.json"
KEY, BLANK = "crc32", "00000000"
DIGITS = re.compile(rb'"crc32": ?"([0-9a-f]{8})"')
SEARCHED = 1 << 20  # bytes at either end that hold the digits
CHUNK = 1 << 20  # bytes read at once
CARRIERS = (".parquet", ".json", ".safetensors")


def seal(file: Path) -> None:
    """Fill in the checksum of `file`, which was written with the key `crc32` and eight zeros."""
    digits = _digits(file)
    if digits is None:
        raise ValueError(f"{file}: was written without a place for its checksum")
    value = crc32(file, digits[0])
    with file.open("r+b") as content:
        content.seek(digits[0])
        content.write(value.encode())


def seal_folder(folder: Path) -> None:
    """Write `checksums.json` into `folder`, with the checksum of every file at any depth."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != FOLDER)
    found = {file.relative_to(folder).as_posix(): crc32(file) for file in files}
    write_json(folder / FOLDER, {"files": found})


def write_json(file: Path, content: dict[str, object]) -> None:
    """Write `content` as JSON with its checksum, whole or not at all."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps({**content, KEY: BLANK}, indent=2) + "\n")
        seal(partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def check(file: Path, delete: Path | None = None) -> None:
    """Raise InputError unless `file` carries the checksum of what it holds; `delete` is what has to be made anew."""
    digits = _digits(file)
    if digits is None or crc32(file, digits[0]) != digits[1]:
        raise _changed(file, delete or file)


def check_inputs(paths: Iterable[Path]) -> None:
    """`check` every artefact at `paths`, files or folders, and the files that a folder's `checksums.json` names."""
    found = [one for path in paths for one in _within(path)]
    with ThreadPoolExecutor(4) as pool:  # zlib lets other threads run meanwhile
        for _ in pool.map(lambda one: _compare(*one), found):
            pass


def _within(path: Path) -> Iterator[tuple[Path, str | None, Path]]:
    """Files at `path`, their checksum where another file has it, and what to delete when they have changed."""
    if not path.is_dir():
        if path.suffix in CARRIERS:
            yield path, None, path
        return
    for table in path.rglob("*.parquet"):
        yield table, None, table
    for listed in path.rglob(FOLDER):
        check(listed, path)
        for name, value in json.loads(listed.read_text())["files"].items():
            yield listed.parent / name, value, path


def _compare(file: Path, expected: str | None, delete: Path) -> None:
    if expected is None:
        check(file, delete)
    elif not file.is_file() or crc32(file) != expected:
        raise _changed(file, delete)


def _changed(file: Path, delete: Path) -> InputError:
    if file.is_symlink():
        return InputError(f"{file}: {file.resolve()} changed since the study began; put it back, or delete {delete}")
    what = "changed after it was written, or is cut short" if file.is_file() else "is missing"
    return InputError(f"{file}: {what}; delete {delete} and run again")


def _digits(file: Path) -> tuple[int, str] | None:
    """Where in `file` its checksum stands, and the checksum; None where it has none."""
    size = file.stat().st_size if file.is_file() else 0
    if not size:
        return None
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as held:
        start = max(0, size - SEARCHED)
        # Metadata come last in Parquet and first in safetensors.
        found = [*DIGITS.finditer(held[start:])][-1:]
        start, found = (start, found) if found else (0, [*DIGITS.finditer(held[:SEARCHED])][:1])
        return (start + found[0].start(1), found[0][1].decode()) if found else None


def crc32(file: Path, blank: int | None = None) -> str:
    """CRC-32 of `file` as eight hexadecimal digits, those that stand at `blank` taken as zeros."""
    size = file.stat().st_size
    with file.open("rb") as content:
        value = _passed(content, size if blank is None else blank, 0)
        if blank is not None:
            content.seek(len(BLANK), os.SEEK_CUR)
            value = _passed(content, size, zlib.crc32(BLANK.encode(), value))
        return f"{value:08x}"


def _passed(content: BinaryIO, length: int, value: int) -> int:
    """CRC-32 that goes on from `value` over the next `length` bytes, or all that are left."""
    held = memoryview(bytearray(min(CHUNK, length)))
    while length > 0 and (count := content.readinto(held[:length])):
        value, length = zlib.crc32(held[:count], value), length - count
    return value
