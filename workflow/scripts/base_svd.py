"""Singular value decompositions of the base model's linear layers, once a base model; on a GPU where there is one."""

import json
import shutil
from pathlib import Path

import torch

from memedynamics import base_svds, checksums, disk, job
from memedynamics.checkpoints import MANIFEST
from memedynamics.job import progress, run
from memedynamics.weights import Weights, linears


def main(model: Path, layers: str, svd: Path, threads: int, work: Path) -> None:
    """Write the folder `svd`, one file a linear layer of the text decoder in `model`; those done survive a kill."""
    torch.set_num_threads(threads)
    weights, folder = Weights(model), work / "svd"
    folder.mkdir(parents=True, exist_ok=True)
    for module in progress(linears(model, layers), "base SVD"):
        file = folder / f"{module}{base_svds.SUFFIX}"
        if not file.exists():
            base_svds.write(weights(module), file)
    # Jobs that read the folder know it by this file alone: it can hold 10 GB.
    (folder / MANIFEST).write_text(json.dumps({"model": job.contents(model), "layers": layers}) + "\n")
    checksums.seal_folder(folder)
    partial = svd.with_name(f".{svd.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial, copy_function=disk.link)  # what was done stays until Snakemake has noted it
    partial.rename(svd)


if __name__ == "__main__":
    run(main)
