"""Where jobs find interpreter and library, and which package versions a study was made with."""

import json
import logging
import os
import re
import socket
import sys
from importlib import metadata
from pathlib import Path

from memedynamics import lease

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "polars", "pyarrow")


# glibc's malloc keeps what a step of training freed for the next one: given back, it comes again page by page, zeroed
# (benchmarks/malloc.py). Blocks above 32 MiB, as of large models, are returned all the same.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": 32 << 20, "MALLOC_TRIM_THRESHOLD_": 4 << 30, "MALLOC_TOP_PAD_": 64 << 20}
# What in a study file needs bitsandbytes: QLoRA, and optimisers named adamw_bnb_8bit, paged_adamw_32bit, ademamix, …
BITSANDBYTES = re.compile(r"qlora|8bit|paged|bnb|\blion|ademamix")


def unsaid(record: logging.LogRecord) -> bool:
    """Whether a log record may be written: with --verbose, a Slurm job's Snakemake logs its whole environment."""
    return not str(record.msg).startswith("environment: environ(")


def expose(library: Path, study: str) -> None:
    """Let the jobs started from this process find `library`, the user's own modules and this interpreter.

    What PYTHONPATH held stays, behind those: a cluster's jobs find the plugin of their storage there. Jobs run with the
    hub switched off, and nothing phones home; `prefetch` alone lifts that for itself. `study` is the study file's
    content: where nothing in it needs bitsandbytes, jobs do not import it.
    """
    os.environ["MEMEDYNAMICS_BITSANDBYTES"] = "yes" if BITSANDBYTES.search(study) else "no"
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # LLaMA-Factory brings it along
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Threads that spin while they wait for each other keep the cores from the jobs beside them, up to tenfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for name, size in MALLOC.items():
        os.environ.setdefault(name, str(size))
    kept = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(library), os.getcwd(), *map(os.path.abspath, kept)]))
    if "slurm-jobstep" in sys.argv:  # Snakemake's own argument for a job that its Slurm executor submitted
        os.environ[lease.ALLOCATED] = os.environ.get("SLURM_JOB_ID", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def installed() -> dict[str, str]:
    """Versions of the packages that a result can depend on."""
    return {name: metadata.version(name) for name in PACKAGES}


def record(file: Path, renew: bool = False) -> None:
    """Write down the versions a study begins with; later calls leave the file alone unless they `renew` it."""
    if renew or not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        # Other jobs may read the file meanwhile: it is whole from the start.
        partial = file.with_name(f".{file.name}.{socket.gethostname()}.{os.getpid()}")
        partial.write_text(json.dumps(installed(), indent=1, sort_keys=True) + "\n")
        partial.replace(file)


def changes(file: Path) -> list[str]:
    """One line a package whose version differs from the one the study recorded in `file`."""
    then = json.loads(file.read_text()) if file.exists() else {}
    now = installed()
    return [
        f"{name} was {then[name]} when this study began, now {now.get(name)}"
        for name in then
        if then[name] != now.get(name)
    ]
