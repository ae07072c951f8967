"""How a script becomes a job: one JSON argument in, `main` called by keyword.

    {"rule", "study", "input": {…}, "output": {…}, "wildcards": {…}, "cfg": {…}, "code", "threads", "gpu", "work"}

`main` takes any of the names inside input, output, wildcards and cfg, and `threads` and `work`, by name and
annotated: pydantic turns strings into paths and dicts into the config's models.
"""

import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import tqdm
from pydantic import ValidationError, validate_call

from memedynamics import environment, lease, tables
from memedynamics.errors import InputError


def run(main: Callable[..., object]) -> None:
    """Call `main` with the job's JSON argument; an InputError ends the process with its one line and status 1."""
    job = json.loads(sys.argv[1])
    # Nothing at run time may depend on a network or phone home: prefetch alone is let out.
    if job["rule"] != "prefetch":
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
    tables.provenance.update(_provenance(job))
    try:
        with lease.gpus(job["gpu"]):
            validate_call(main, config={"arbitrary_types_allowed": True})(**_arguments(main, job))
    except ValidationError as error:
        first = error.errors()[0]
        sys.exit(f"error: {job['rule']}: {'.'.join(map(str, first['loc']))}: {first['msg']}")
    except InputError as error:
        sys.exit(f"error: {error}")
    shutil.rmtree(job["work"], ignore_errors=True)


def _arguments(main: Callable[..., object], job: dict) -> dict[str, object]:
    given = {"threads": job["threads"]}
    for part in ("input", "output", "wildcards", "cfg"):
        given |= job[part]
    names = inspect.signature(main).parameters
    if "work" in names:
        given["work"] = _work(job)
    return {name: given[name] for name in names if name in given}


def _work(job: dict) -> Path:
    """The job's private folder, empty unless an earlier try had the same code, settings and inputs."""
    seen = hashlib.sha256(job["digest"].encode())
    for value in job["input"].values():
        for path in value if isinstance(value, list) else [value]:
            seen.update(contents(Path(path)).encode())
    folder = Path(job["work"]) / seen.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def contents(path: Path) -> str:
    """Digest of a file, or of a folder: of its manifest `base.json` where it has one, else of all its files."""
    if (path / "base.json").exists():
        path = path / "base.json"
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
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


def progress(items: Iterable, what: str, total: int | None = None) -> tqdm.tqdm:
    """`items` with a progress bar: on the terminal of an interactive run, in the job's log otherwise."""
    try:
        terminal = open("/dev/tty", "w")
        return tqdm.tqdm(items, desc=what, total=total, file=terminal, leave=False, dynamic_ncols=True)
    except OSError:
        return tqdm.tqdm(items, desc=what, total=total, file=sys.stderr, mininterval=10, ascii=True)
