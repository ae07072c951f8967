"""Whether a process that left word of itself in a file is still the one that did."""

import socket

import psutil

SLACK = 2.0  # seconds between a process's start and what it writes, by clocks that differ


def alive(process: int, host: str, since: float) -> bool | None:
    """Whether `process`, which wrote something down at `since`, still is that one; None where it is on another machine.

    An ended one's number may have been given to another.
    """
    if host != socket.gethostname():
        return None
    try:
        return psutil.Process(process).create_time() <= since + SLACK
    except psutil.NoSuchProcess:
        return False
