"""LLaMA-Factory as a process of its own: found, started in its environment, listened to, stopped with the job."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from memedynamics import llamafactory_entry
from memedynamics.errors import InputError
from memedynamics.job import progress

# The exception that a traceback ends with, or a line meant for the user.
_WORDS = re.compile(r"^(error: .+|[\w.]*(Error|Exception|Interrupt|Exit)\b.*)$")


def interpreter(environment: Path) -> str:
    """The Python that `environment`, written by llamafactory_env, names; raises InputError where there is none."""
    again = "make it with `snakemake llamafactory_env --cores 1`"
    try:
        python = json.loads(environment.read_text())["python"]
    except FileNotFoundError as error:
        raise InputError(f"{environment}: LLaMA-Factory's environment is missing; {again}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{environment}: does not name an interpreter; delete it and {again}") from error
    if not os.access(python, os.X_OK):
        raise InputError(f"{environment}: {python} is no longer there; delete the file and {again}")
    return python


def train(python: str, arguments: Path, settings: Path, log: Path, variables: Mapping[str, str], what: str) -> None:
    """Run the training that `arguments` and `settings` describe to its end; what it says goes to stderr and `log`.

    SIGTERM is passed on, after which it saves and stops. Raises InputError with its own last words where it fails.
    """
    # -P: of the folders here only the library is searched for modules.
    command = [python, "-P", "-m", llamafactory_entry.__name__, str(arguments), str(settings)]
    library = Path(llamafactory_entry.__file__).parents[1]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "LLAMAFACTORY_VERBOSITY": "WARN"}
    surroundings = {**os.environ, **offline, "PYTHONPATH": str(library), "PYTHONUNBUFFERED": "1", **variables}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    try:
        process = subprocess.Popen(command, env=surroundings, **piped)
    except OSError as error:
        raise InputError(f"{python}: LLaMA-Factory does not start: {error}") from error
    with process, passed_on(process):
        said = list(_followed(process, log, what))
    if process.returncode:
        raise InputError(f"LLaMA-Factory failed: {last_words(said, process.returncode)}; its log is {log}")


def _followed(process: subprocess.Popen, log: Path, what: str) -> Iterator[str]:
    """The process's lines as they come, written down; its steps become a progress bar instead."""
    bar = None
    with log.open("w", buffering=1) as file:
        for line in process.stdout:
            if not line.startswith(llamafactory_entry.STEP):
                sys.stderr.write(line)
                file.write(line)
                yield line
                continue
            done, total = map(int, re.findall(r"\d+", line))
            bar = progress(None, what, total=total) if bar is None else bar
            bar.update(done - bar.n)
    if bar is not None:
        bar.close()


@contextmanager
def passed_on(process: subprocess.Popen) -> Iterator[None]:
    """Inside, SIGTERM to this process is one to `process`, which ends it in its own time; an error here ends it too."""
    previous = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        yield
    except BaseException:
        process.kill()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def last_words(lines: list[str], status: int) -> str:
    """Why a process that said `lines` ended with `status`: its exception or error, else its last line."""
    said = [line.strip() for line in lines if line.strip()]
    named = [line for line in said[-60:] if _WORDS.match(line)]
    words = (named or said or [f"it said nothing and ended with status {status}"])[-1]
    return words.removeprefix("error: ")
