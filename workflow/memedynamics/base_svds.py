"""The base's own singular value decompositions: computed once a base model, one file a module, read one at a time.

Left vectors are kept in float16 (half the room; cosines are right to 1e-3), singular values in float32.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from memedynamics.errors import InputError
from memedynamics.intruders import Base
from memedynamics.spectra import of_matrix
from memedynamics.weights import device

SUFFIX = ".safetensors"


def write(weight: torch.Tensor, file: Path) -> None:
    """Decompose `weight` (out, in) into `file`, whole or not at all: `left` (out, k), `values` (k,), `frobenius`."""
    left, values, _ = of_matrix(weight)
    partial = file.with_name(f".{file.name}.partial")
    tensors = {
        "left": left.half().cpu().contiguous(),
        "values": values.float().cpu(),
        "frobenius": torch.linalg.norm(weight.double()).cpu(),
    }
    partial.write_bytes(save(tensors))  # save_file would keep it from other users of a shared cache
    partial.rename(file)


def modules(folder: Path) -> list[str]:
    """The modules whose decomposition lies in `folder`, in the order of their names."""
    found = sorted(file.name.removesuffix(SUFFIX) for file in folder.glob(f"*{SUFFIX}"))
    if not found:
        raise InputError(f"{folder}: holds no decomposition; run base_svd")
    return found


def read(folder: Path, module: str) -> tuple[Base, float]:
    """The decomposition of `module` and its Frobenius norm; raises InputError when the file cannot be read."""
    file = folder / f"{module}{SUFFIX}"
    try:
        tensors = load_file(file, device=str(device()))
        return Base(tensors["left"], tensors["values"]), float(tensors["frobenius"])
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{file}: no whole decomposition ({error}); delete the folder and run base_svd") from error
