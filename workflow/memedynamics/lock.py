"""Locks that end with their process however it ends: one Snakemake a study, one process a job.

Snakemake's own lock outlives a Snakemake that was killed, and is taken away when another study's run in the same
folder ends: alone it neither opens nor holds. Where a file system has no locks (Lustre without `-o flock`), jobs are
not locked, and of a study only what its file says counts: a process of this machine lives or has ended, of one on
another machine nothing is known.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TextIO

import psutil

from memedynamics.errors import InputError
from memedynamics.living import alive

RUNNING = ".running"
WHO = re.compile(r"process (\d+) on (.*?)(?: at .*)?")  # what `_me` writes, and the task of a job
PATIENCE = 1.0  # seconds: another Snakemake may look at the lock while it is taken
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def hold_study(root: Path, log: str = "") -> TextIO:
    """Take the study in `root` for this process until it ends or closes what this returns.

    `log`, where this Snakemake writes its own, stands below the process, seen from `root`, for who watches the study.
    Raises InputError naming the process that has it.
    """
    root.mkdir(parents=True, exist_ok=True)
    held, began = (root / RUNNING).open("a+"), time.monotonic()
    while (answer := _take(held)) == "held" or (answer == "unknown" and _lives(held)):
        if time.monotonic() - began > PATIENCE:
            who = _said(held).partition("\n")[0]
            raise InputError(f"{root}: {who} is at work on this study; wait for it or end it, and run again")
        time.sleep(0.05)
    _say(held, f"{_me()}\n{os.path.relpath(log, root) if log else ''}")
    return held


def forget_killed(root: Path, locks: Path) -> None:
    """Take away what a killed Snakemake left in its folder `locks` for the study in `root`, unless one is at work."""
    with _seen(root) as alone:
        for file in locks.glob("*.lock") if alone else ():
            with contextlib.suppress(FileNotFoundError):  # another study's run may end meanwhile
                if f"{root}/" in file.read_text():
                    file.unlink()


def has_been_held(root: Path) -> bool:
    """Whether a Snakemake has, or had, the study in `root`, as far as this machine sees its disk."""
    return (root / RUNNING).exists()


@contextlib.contextmanager
def _seen(root: Path) -> Iterator[bool]:
    """Inside, no Snakemake begins with the study in `root`, if this yields that the last one is gone."""
    if not has_been_held(root):
        yield False
        return
    with (root / RUNNING).open() as held:
        answer = _take(held, fcntl.LOCK_SH)
        yield answer == "taken" or (answer == "unknown" and _ended(held))


@contextlib.contextmanager
def alone(file: Path, task: str) -> Iterator[bool]:
    """Inside, no other process is in here with `file`; yields whether one at the same `task` had to be waited for.

    Such a one is a job that outlived its Snakemake, and still writes what this one would.
    """
    held, others = _opened(file), []
    while True:
        if _take(held) == "held":
            who = _said(held).partition(" at ")[0]
            print(f"waiting for {who}, which an earlier run left at this job", file=sys.stderr)
            fcntl.flock(held, fcntl.LOCK_EX)
            others.append(_said(held))  # once more: it may not have said anything before
        if _is(held, file):
            break
        held.close()
        held = _opened(file)
    _say(held, f"{_me()} at {task}")
    try:
        yield bool(others) and all(other.endswith(f" at {task}") for other in others)
    finally:
        file.unlink(missing_ok=True)
        held.close()


def _opened(file: Path) -> TextIO:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.open("a+")


def _is(held: TextIO, file: Path) -> bool:
    """Whether `held` still goes by the name `file`: who ends a job takes its lock's file away."""
    return file.exists() and os.path.samestat(os.fstat(held.fileno()), file.stat())


def _take(held: TextIO, kind: int = fcntl.LOCK_EX) -> Literal["taken", "held", "unknown"]:
    """Lock a file, unless another process holds it; unknown where the file system has no locks."""
    try:
        fcntl.flock(held, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise
        return "unknown"
    return "taken"


def _lives(held: TextIO) -> bool:
    """Whether a study's file names a process of this machine that is still the one that wrote it."""
    who = WHO.fullmatch(_said(held).partition("\n")[0])
    return bool(who and alive(int(who[1]), who[2], os.fstat(held.fileno()).st_mtime))


def _ended(held: TextIO) -> bool:
    """Whether a study's file names a process of this machine whose number nobody has any more.

    More than that `_lives` says no: it compares clocks, and what it takes for ended could still be at work.
    """
    who = WHO.fullmatch(_said(held).partition("\n")[0])
    return bool(who and who[2] == socket.gethostname() and not psutil.pid_exists(int(who[1])))


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _said(held: TextIO) -> str:
    held.seek(0)
    return held.read() or "another process"


def _say(held: TextIO, words: str) -> None:
    held.truncate(0)
    held.write(words)
    held.flush()
