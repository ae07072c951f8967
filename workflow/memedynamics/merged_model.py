"""The base model with a change to some of its tensors, as a folder: the base's own files, names and index.

W0 + ΔW is formed in float32 and rounded once, to the dtype the base is stored in. One file's tensors are in memory at
a time, and the updates of one tensor.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from memedynamics import checkpoints, merging, sources
from memedynamics.job import progress
from memedynamics.merge_parents import Parent, read, stored
from memedynamics.merging import Inner
from memedynamics.methods import MergedMethod

Change = Callable[[str, Tensor], Tensor | None]  # a stored name and the base's tensor to its float32 update


def merge(base: Path, method: MergedMethod, parents: Mapping[str, Parent], folder: Path) -> dict[str, object]:
    """Write the merge of `parents` by `method` into `folder`; returns the recipe as run.json keeps it."""
    found = inner(base, *parents.values()) if method.how == "slerp" else None
    weights = merging.coefficients(method, found)

    def change(name: str, tensor: Tensor) -> Tensor | None:
        updates = {
            run: update for run, parent in parents.items() if (update := parent.update(name, tensor)) is not None
        }
        return merging.merged(method, weights, updates, name) if updates else None

    write(base, change, folder, f"merge ({method.how})")
    recipe = {"how": method.how, "of": method.of, "coefficients": [weights[run] for run in method.of]}
    recipe |= {"density": method.density} if method.how in ("ties", "dare") else {}
    recipe |= {"seed": method.seed} if method.how == "dare" else {}
    return recipe | ({"cosine": found.cosine} if found else {})


def inner(base: Path, first: Parent, second: Parent) -> Inner:
    """Inner products of two runs' updates over all tensors of the model in `base`."""
    total = Inner(0.0, 0.0, 0.0)
    for one, other in progress(_both(base, first, second), "angle", total=len(stored(base))):
        if one is not None or other is not None:
            one, other = (other * 0 if one is None else one), (one * 0 if other is None else other)
            total = Inner(*(a + b for a, b in zip(total, merging.inner(one, other), strict=True)))
    return total


def _both(base: Path, first: Parent, second: Parent) -> Iterator[tuple[Tensor | None, Tensor | None]]:
    for file, name in stored(base).values():
        tensor = read(file, name)
        yield first.update(name, tensor), second.update(name, tensor)


def write(base: Path, change: Change, folder: Path, what: str) -> None:
    """The model in `base` with `change` added to it, as configuration and weight files in `folder`."""
    for name in sources.COPIED:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    bar = progress(None, what, total=len(stored(base)))
    for file in checkpoints.weight_files(base):
        with safe_open(file, framework="pt") as tensors:
            names, note = list(tensors.keys()), tensors.metadata()
        shard = {}
        for name in names:
            shard[name] = changed(read(file, name), name, change).cpu().contiguous()
            bar.update(1)
        save_file(shard, folder / file.name, metadata=note)
    bar.close()


def changed(tensor: Tensor, name: str, change: Change) -> Tensor:
    """`tensor` with its change, in its own dtype; itself where there is none."""
    update = change(name, tensor) if tensor.is_floating_point() else None
    return tensor if update is None else (tensor.float() + update).to(tensor.dtype)
