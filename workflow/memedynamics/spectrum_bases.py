"""The leading singular vectors of a run's final updates on disk: one safetensors file a run, read module by module."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from memedynamics import checksums
from memedynamics.errors import InputError

SIDES = ("left", "right")


def write(bases: Mapping[str, np.ndarray], file: Path) -> None:
    """Write `bases`, by "update/side/module" (n, k) float16, to `file`, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(save(dict(bases), metadata={checksums.KEY: checksums.BLANK}))
    checksums.seal(partial)
    partial.rename(file)


def merge(parts: Iterable[Path], file: Path) -> None:
    """Join the files `parts` into `file`; raises InputError naming one that changed meanwhile."""
    parts = list(parts)
    for part in parts:
        checksums.check(part)
    write({name: basis for part in parts for name, basis in load_file(part).items()}, file)


def key(update: str, side: str, module: str) -> str:
    """The name of a basis in its file."""
    return f"{update}/{side}/{module}"


def modules(file: Path) -> set[str]:
    """The modules that `file` holds bases of; raises InputError when it is missing or cut short."""
    try:
        with safe_open(file, framework="np") as tensors:
            return {name.split("/", 2)[2] for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: no whole file of bases ({error}); delete it and run extract_spectrum") from error


def read(file: Path, update: str, side: str, module: str) -> np.ndarray:
    """The basis (n, k) of `module` in `file`."""
    with safe_open(file, framework="np") as tensors:
        return tensors.get_tensor(key(update, side, module))
