"""Where jobs find interpreter and library, and which package versions a study was made with."""

import json
import os
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "polars", "pyarrow")


def expose(library: Path) -> None:
    """Let the jobs started from this process find `library`, the user's own modules and this interpreter.

    They run with the hub switched off, and nothing phones home; `prefetch` alone lifts that for itself.
    """
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(library), os.getcwd()])
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def installed() -> dict[str, str]:
    """Versions of the packages that a result can depend on."""
    return {name: metadata.version(name) for name in PACKAGES}


def record(file: Path) -> None:
    """Write down the versions a study begins with; later calls leave the file alone."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(installed(), indent=1, sort_keys=True) + "\n")


def changes(file: Path) -> list[str]:
    """One line a package whose version differs from the one the study recorded in `file`."""
    then = json.loads(file.read_text()) if file.exists() else {}
    now = installed()
    return [
        f"{name} was {then[name]} when this study began, now {now.get(name)}"
        for name in then
        if then[name] != now.get(name)
    ]
