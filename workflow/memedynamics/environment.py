"""Which package versions a study was made with, and whether they have changed since."""

import json
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "polars", "pyarrow")


def installed() -> dict[str, str]:
    """Versions of the packages that a result can depend on."""
    return {name: metadata.version(name) for name in PACKAGES}


def record(file: Path) -> list[str]:
    """Write the versions to `file` when a study begins; later, the changes since then, one line each."""
    now = installed()
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
        return []
    then = json.loads(file.read_text())
    return [f"{name} {then.get(name)} -> {version}" for name, version in now.items() if then.get(name) != version]
