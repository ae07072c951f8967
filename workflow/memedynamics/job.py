"""How a script becomes a job: one JSON argument in, `main` called by keyword.

    {"rule", "at", "root", "study", "input": {…}, "output": {…}, "wildcards": {…}, "cfg": {…}, "aside": {…},
     "code", "digest", "threads", "gpu", "work", "timing"}

`main` takes any of the names inside input, output, wildcards, cfg and aside, and `threads` and `work`, by name and
annotated: pydantic turns strings into paths and dicts into the config's models.
"""

import contextlib
import ctypes
import gc
import hashlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import tqdm
from pydantic import ValidationError, validate_call

from memedynamics import checkpoints, checksums, disk, environment, lease, lock, noted, outside, tables
from memedynamics.errors import InputError


def run(main: Callable[..., object]) -> None:
    """Call `main` with the job's JSON argument; an InputError ends the process with its one line and status 1.

    Of several processes that share the job (module `launch`) only the first leaves its work and reports.
    """
    gc.enable()  # off while modules are imported
    # The process's own start: importing torch and the trainers is most of a short job.
    began = psutil.Process().create_time()
    _end_with_launcher()
    job = json.loads(sys.argv[1])
    if job.get("at"):  # where a storage puts copies of what the job needs
        os.makedirs(job["at"], exist_ok=True)
        os.chdir(job["at"])
    tables.provenance.update(_provenance(job))
    try:
        environment.record(Path(job["root"]) / "environment.json", renew=job.get("renew", False))
        checksums.check_inputs(path for path in _paths(job["input"]) if job["root"] in str(path))
        _carry_out(main, job)
        if is_first_process():
            _report(job, began)
    except ValidationError as error:
        first = error.errors()[0]
        sys.exit(f"error: {job['rule']}: {'.'.join(map(str, first['loc']))}: {first['msg']}")
    except InputError as error:
        sys.exit(f"error: {error}")
    except Exception as error:
        if told := disk.explained(error, Path(job["root"])):
            sys.exit(f"error: {told}")
        raise


def _carry_out(main: Callable[..., object], job: dict) -> None:
    """Call `main` unless a process that outlived its Snakemake has just done this same job."""
    given = {"threads": max(1, job["threads"] // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))}
    for part in ("input", "output", "wildcards", "cfg", "aside"):
        given |= job.get(part, {})
    names = inspect.signature(main).parameters
    if "work" in names:
        given["work"] = _work(job)
    file, task = Path(f"{job['work']}.lock"), str(given.get("work", ""))
    alone = lock.alone(file, task) if is_first_process() else contextlib.nullcontext(False)
    with alone as same:
        # By the clock of the disk that the outputs will be on.
        outside.refuse_future(_paths(job["input"]), file.stat().st_mtime if file.exists() else None)
        if task and same and _done(job, given["work"]):
            return
        if task:
            given["work"].mkdir(parents=True, exist_ok=True)
            (given["work"] / noted.ENDED).unlink(missing_ok=True)
        with lease.gpus(job["gpu"]):
            own = {name: given[name] for name in names if name in given}
            validate_call(main, config={"arbitrary_types_allowed": True})(**own)
        if is_first_process():
            _as_the_umask_says(_paths(job["output"]))
            _leave(job, given.get("work"))


def _leave(job: dict, work: Path | None) -> None:
    """Leave the job's private folder to the Snakemake that takes it away (module `noted`), unless there is none."""
    if not lock.has_been_held(Path(job["root"])):
        disk.discard(Path(job["work"]), Path(job["root"], noted.TRASH))
    elif work:
        (work / noted.ENDED).touch()


def _done(job: dict, work: Path) -> bool:
    """Whether another process has ended the job and its outputs are there; several processes only go on together."""
    ended = not Path(job["work"]).exists() or (work / noted.ENDED).exists()
    return processes() == 1 and ended and all(map(Path.exists, _paths(job["output"])))


def _end_with_launcher() -> None:
    # A launcher that is killed outright cannot end its processes, and they would go on beside the retried job's.
    if "RANK" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def processes() -> int:
    """How many processes share the job."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first_process() -> bool:
    """Whether this is the job's only process, or the first of those that a launcher started for it."""
    return os.environ.get("RANK", "0") == "0"


def _paths(files: dict[str, str | list[str]]) -> list[Path]:
    """All of a job's inputs, or of its outputs."""
    return [Path(path) for value in files.values() for path in (value if isinstance(value, list) else [value])]


def _work(job: dict) -> Path:
    """The job's private folder, empty unless an earlier try had the same code, settings and inputs."""
    seen = hashlib.sha256(job["digest"].encode())
    for path in _paths(job["input"]):
        seen.update(contents(path).encode())
    return Path(job["work"]) / seen.hexdigest()[:16]


def contents(path: Path) -> str:
    """Digest of a file, or of a folder: of its manifest `base.json` where it has one, else of all its files.

    Files of 1 GiB or more, as of milestones that are full weights, are sampled (`checkpoints.content_digest`).
    """
    if (path / checkpoints.MANIFEST).exists():
        path = path / checkpoints.MANIFEST
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(bytes.fromhex(checkpoints.content_digest(file)))
    return digest.hexdigest()


def _provenance(job: dict) -> dict[str, object]:
    return {
        "study": job["study"],
        "rule": job["rule"],
        "config": job["digest"],
        "code": job["code"],
        "commit": _commit(),
        "packages": environment.installed(),
    }


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


class Bar(tqdm.tqdm):
    """A progress bar that also sums up, for the whole job, the seconds spent under it."""

    seconds = 0.0

    def close(self) -> None:
        """Take the bar away and count its time; closing twice counts once."""
        if not getattr(self, "counted", False):
            self.counted = True
            Bar.seconds += time.time() - self.start_t if hasattr(self, "start_t") else 0.0
        super().close()


def progress(items: Iterable, what: str, total: int | None = None) -> Bar:
    """`items` with a progress bar: on the terminal of an interactive run, in the job's log otherwise."""
    try:
        terminal = open("/dev/tty", "w")  # noqa: SIM115
        return Bar(items, desc=what, total=total, file=terminal, leave=False, dynamic_ncols=True)
    except OSError:
        return Bar(items, desc=what, total=total, file=sys.stderr, mininterval=10, ascii=True)


def _as_the_umask_says(outputs: Iterable[Path]) -> None:
    """Let whom the umask lets read weights: safetensors writes its files for their owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for path in outputs:
        for file in [path, *path.rglob("*.safetensors")]:
            # What a link leads to is not the study's own.
            if file.suffix == ".safetensors" and not file.is_symlink():
                file.chmod(0o666 & ~mask)


def _report(job: dict, began: float) -> None:
    """Beside Snakemake's benchmark: the seconds that went into items, not into starting up, and use of GPUs."""
    if job.get("timing"):
        file = Path(job["timing"])
        file.parent.mkdir(parents=True, exist_ok=True)
        told = {"seconds": time.time() - began, "items": Bar.seconds, **_devices(job["gpu"])}
        file.write_text(json.dumps(told) + "\n")


def _devices(count: int) -> dict[str, float]:
    """How many GPUs the job held, and the most MiB that this process had on one of them; nothing without GPUs."""
    torch = sys.modules.get("torch")
    if not count or torch is None or not torch.cuda.is_available():
        return {}
    held = [torch.cuda.max_memory_reserved(device) for device in range(torch.cuda.device_count())]
    return {"gpus": count, "gpu_memory": max(held) / 2**20}
