"""LLaMA-Factory's own environment, built once from its pins, or found; needs nothing but Python itself.

`python llamafactory_env.py PINS ENVIRONMENT LOG` writes ENVIRONMENT, a JSON file that names the interpreter:
1. the one in MEMEDYNAMICS_LLAMAFACTORY, where a machine has such an environment already;
2. this one, where it has LLaMA-Factory (`--sdm conda` runs the script inside the conda twin);
3. else that of a virtual environment beside ENVIRONMENT, named by the pins' checksum: 2 minutes, 7.7 GB, once.
A build that was cut short is taken up again: it counts only once it is marked as complete.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

GIVEN = "MEMEDYNAMICS_LLAMAFACTORY"
ASK = "import json; from importlib.metadata import version as v; print(json.dumps({n: v(n) for n in %r}))"
PACKAGES = ("llamafactory", "torch", "transformers", "trl", "peft", "accelerate", "datasets")


def main(pins: Path, environment: Path, log: str) -> None:
    environment.parent.mkdir(parents=True, exist_ok=True)
    try:
        python = os.environ.get(GIVEN) or (sys.executable if importlib.util.find_spec("llamafactory") else None)
        python = python or str(built(pins, environment.parent))
        found = run([python, "-c", ASK % (PACKAGES,)], stdout=subprocess.PIPE).stdout
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: LLaMA-Factory's environment could not be made: {error}; what failed stands in {log}")
    partial = environment.with_name(f".{environment.name}.partial")
    partial.write_text(json.dumps({"python": python, "packages": json.loads(found)}, indent=1) + "\n")
    partial.replace(environment)


def built(pins: Path, parent: Path) -> Path:
    """The interpreter of the virtual environment with exactly `pins`, made now unless it is complete."""
    folder = parent / f"llamafactory-{hashlib.sha256(pins.read_bytes()).hexdigest()[:12]}"
    python = folder.absolute() / "bin/python"
    with (parent / ".llamafactory.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two studies may start at once
        if not (folder / "complete").exists():
            venv.create(folder, with_pip=True)
            install([str(python), "-m", "pip", "install", "--progress-bar", "off", "--requirement", str(pins)])
            (folder / "complete").touch()
    return python


def install(command: list[str]) -> None:
    """Run pip's `command` and pass on what it says; raises ValueError with its last words of an error."""
    said = []
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean()) as process:
        for line in process.stdout:
            sys.stderr.write(line)
            said += [line.strip()] if line.strip() else []
    if process.returncode:
        named = [line for line in said if line.lower().startswith("error:")]
        raise ValueError("pip: " + " ".join((named or said)[-2:]))


def run(command: list[str], stdout: int | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(command, check=True, text=True, stdout=stdout, env=clean())


def clean() -> dict[str, str]:
    # The library of this project is not for that interpreter.
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
