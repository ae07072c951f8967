"""One GPU, one job: a file lock per device, held while a job runs.

`gpu=1` alone does not stop Snakemake from starting every GPU job at once on one device. Each job therefore takes
a lock on as many devices as it asked for and sees only those. A job that Snakemake's Slurm executor submitted has an
allocation of its own and takes none; jobs that share an allocation (salloc) take theirs among its devices. Locks die
with their process, so a killed job frees its device.
"""

import contextlib
import fcntl
import getpass
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from memedynamics.errors import InputError

ALLOCATED = (
    "MEMEDYNAMICS_ALLOCATION"  # the Slurm job that holds this job's devices for it alone; see environment.expose
)


def devices() -> list[str]:
    """The device names this process may use; none where there is no GPU.

    `MEMEDYNAMICS_GPUS` (comma-separated) names them outright; else CUDA_VISIBLE_DEVICES; else what the driver lists.
    """
    for variable in ("MEMEDYNAMICS_GPUS", "CUDA_VISIBLE_DEVICES"):
        if variable in os.environ:
            return [name.strip() for name in os.environ[variable].split(",") if name.strip()]
    return sorted(p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*"))


def alone() -> bool:
    """Whether this is a job that Snakemake submitted to Slurm: all the devices of its allocation are its own."""
    return os.environ.get("SLURM_JOB_ID", "") == os.environ.get(ALLOCATED) != ""


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"memedynamics-gpus-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _try(name: str) -> int | None:
    """A descriptor that holds the lock on device `name`, or None when another job holds it."""
    # Allocations number their devices from 0, and the folder may be shared between hosts.
    owner = f"{socket.gethostname()}-{os.environ.get('SLURM_JOB_ID', 'none')}"
    descriptor = os.open(_folder() / f"{owner}-{name.replace('/', '_')}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except BlockingIOError:
        os.close(descriptor)
        return None


def _take(count: int, names: list[str]) -> dict[str, int]:
    """Locks on `count` of `names`, or none at all: holding some while waiting for more could deadlock."""
    held: dict[str, int] = {}
    for name in names:
        if len(held) < count and (descriptor := _try(name)) is not None:
            held[name] = descriptor
    if len(held) < count:
        _release(held)
        return {}
    return held


def _release(held: dict[str, int]) -> None:
    for descriptor in held.values():
        os.close(descriptor)


@contextlib.contextmanager
def gpus(count: int, poll: float = 2.0) -> Iterator[list[str]]:
    """Wait for `count` devices of this machine, show only those to CUDA, and free them at the end.

    Does nothing when `count` is 0, when the machine has no GPU, where Slurm allocated devices to this job alone, or
    where a launcher holds them for this process and others.
    """
    names = devices()
    if not count or not names or alone() or "RANK" in os.environ:
        yield []
        return
    held = _wait(min(count, len(names)), names, poll)
    try:
        yield list(held)
    finally:
        _release(held)


def keep(count: int) -> None:
    """Wait for `count` devices as `gpus` does, and hold them as long as this process lives, whatever it executes.

    Raises InputError where the machine has fewer, but for one without any: there processes share the CPU.
    """
    names = devices()
    if not names or alone():
        return
    if count > len(names):
        raise InputError(f"launch.processes: {count} on this machine, which has {len(names)} GPUs; ask for fewer")
    for descriptor in _wait(count, names, 2.0).values():
        os.set_inheritable(descriptor, True)


def _wait(count: int, names: list[str], poll: float) -> dict[str, int]:
    """Locks on `count` of `names`, once so many are free; CUDA then sees those alone."""
    waited = False
    while not (held := _take(count, names)):
        if not waited:
            print(f"waiting for {count} of GPU {', '.join(names)}", file=sys.stderr, flush=True)
        waited = True
        time.sleep(poll)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
    return held
