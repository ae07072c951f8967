"""A full disk, a used-up quota, a read-only folder: one line for each, whichever library met it; folders that go."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

ADVICE = {
    errno.ENOSPC: "make room there and run again",
    errno.EDQUOT: "free some of it or have it raised, and run again",
    errno.EROFS: "make it writable or link it to another disk, and run again",
    errno.EACCES: "make it yours or link it to another folder, and run again",
}
SAID = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # by libraries in other errors than the system's
LITTLE = 1 << 20  # bytes: less is a full disk


def discard(folder: Path, trash: Path) -> None:
    """Take `folder` away by way of `trash`: at once under its name, so that nobody finds part of it after a kill.

    Where the file system does not let it go, it stays.
    """
    gone = trash / uuid.uuid4().hex
    with contextlib.suppress(OSError):
        trash.mkdir(parents=True, exist_ok=True)
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def link(source: str, target: str) -> None:
    """A second name for the file `source`, or a copy where the file system has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def explained(error: BaseException, folder: Path) -> str | None:
    """What `error`, or one that it came of, says of the disk under `folder`; None where it is about something else."""
    for one in _chain(error):
        number = one.errno if isinstance(one, OSError) else None
        words = str(one).lower()
        number = number or next((known for known in SAID if os.strerror(known).lower() in words), None)
        if number in ADVICE:
            return _line(getattr(one, "filename", None) or folder, number)
    # torch's writer says only that it failed.
    return full(folder)


def full(folder: Path) -> str | None:
    """The line about `folder` when there is no room left under it."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return _line(folder, errno.ENOSPC) if shutil.disk_usage(there).free < LITTLE else None


def unwritable(folder: Path) -> str | None:
    """The line about `folder` when nothing can be written there, or where it would be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if os.access(there, os.W_OK):
        return None
    read_only = os.statvfs(there).f_flag & os.ST_RDONLY
    return _line(there, errno.EROFS if read_only else errno.EACCES)


def _line(path: Path | str, number: int) -> str:
    return f"{path}: {os.strerror(number).lower()}; {ADVICE[number]}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
