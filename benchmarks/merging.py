"""Merging matrix by matrix against holding every update at once: seconds and peak memory, side by side.

    PYTHONPATH=workflow python benchmarks/merging.py
    PYTHONPATH=workflow python benchmarks/merging.py --size 1024 --matrices 12

Two LoRA runs of rank 16 on a few 3584 × 3584 matrices stored in bfloat16, one a file, merged by every rule. Streamed:
the project's own way, a matrix and its two updates at a time. Whole: base and both runs' updates in float32 first, as
a merge of loaded models does. Each side runs in a process of its own, whose peak resident memory is read at its end,
less that after the imports. Exits 1 unless both write the same bits and streaming peaks lower.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from memedynamics import checkpoints, merged_model, merging
from memedynamics.config import MergedMethod
from memedynamics.spectra import Factors

RULES = ("linear", "slerp", "task_arithmetic", "ties", "dare")
RUNS = ("a", "b")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in {"size": 3584, "rank": 16, "matrices": 6, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--side", choices=["streamed", "whole"], help=argparse.SUPPRESS)
    parser.add_argument("--rule", default="linear", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def build(folder: Path, args: argparse.Namespace) -> None:
    """The base's matrices and two runs' factors."""
    (folder / "base").mkdir()
    names = [f"layers.{i}.weight" for i in range(args.matrices)]
    files = {name: f"model-{i}.safetensors" for i, name in enumerate(names)}
    (folder / "base" / checkpoints.INDEX).write_text(json.dumps({"weight_map": files}))
    (folder / "base/config.json").write_text("{}")
    for name, file in files.items():
        save_file({name: torch.randn(args.size, args.size, dtype=torch.bfloat16)}, folder / "base" / file)
    for run in RUNS:
        left = {f"{name}/left": torch.randn(args.size, args.rank) / args.size for name in names}
        right = {f"{name}/right": torch.randn(args.rank, args.size) for name in names}
        save_file(left | right, folder / f"{run}.safetensors")


class Run:
    """A run's updates out of its file of factors."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def update(self, name: str, _: torch.Tensor) -> torch.Tensor:
        with safe_open(self.file, "pt") as held:
            return Factors(held.get_tensor(f"{name}/left"), held.get_tensor(f"{name}/right")).dense(torch.float32)


def whole(base: Path, method: MergedMethod, runs: dict[str, Run], folder: Path) -> None:
    """Everything loaded, then merged, then written."""
    tensors = {}
    for file in checkpoints.weight_files(base):
        with safe_open(file, "pt") as held:
            tensors |= {name: held.get_tensor(name).float() for name in held.keys()}  # noqa: SIM118
    updates = {run: {name: one.update(name, tensors[name]) for name in tensors} for run, one in runs.items()}
    products = [merging.inner(updates["a"][name], updates["b"][name]) for name in tensors]
    total = merging.Inner(*map(sum, zip(*products, strict=True)))
    weights = merging.coefficients(method, total)
    merged = {
        name: merging.merged(method, weights, {run: some[name] for run, some in updates.items()}, name)
        for name in tensors
    }
    for file in checkpoints.weight_files(base):
        with safe_open(file, "pt") as held:
            save_file({n: (tensors[n] + merged[n]).bfloat16() for n in held.keys()}, folder / file.name)  # noqa: SIM118


def one_side(args: argparse.Namespace) -> None:
    """Merge one way, and print seconds computed and memory gained (MiB) at its peak."""
    torch.set_num_threads(args.threads)
    method = MergedMethod(kind="merge", how=args.rule, of=list(RUNS))
    runs = {run: Run(args.folder / f"{run}.safetensors") for run in RUNS}
    output = args.folder / f"{args.rule}-{args.side}"
    output.mkdir()
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (merged_model.merge if args.side == "streamed" else whole)(args.folder / "base", method, runs, output)
    gained = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps([time.process_time() - start, gained]))


def measured(args: argparse.Namespace, folder: Path, rule: str, side: str) -> tuple[float, float]:
    given = [f"--{name}={getattr(args, name)}" for name in ("size", "rank", "matrices", "threads")]
    command = [sys.executable, __file__, *given, f"--rule={rule}", f"--side={side}", f"--folder={folder}"]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return tuple(json.loads(found.stdout))


def equal(folder: Path, rule: str) -> bool:
    """Whether both sides wrote the same numbers."""
    files = [checkpoints.weight_files(folder / "base"), sorted((folder / f"{rule}-whole").glob("*.safetensors"))]
    for file in files[1]:
        with safe_open(file, "pt") as one, safe_open(folder / f"{rule}-streamed" / file.name, "pt") as other:
            if not all(torch.equal(one.get_tensor(name), other.get_tensor(name)) for name in one.keys()):  # noqa: SIM118
                return False
    return len(files[0]) == len(files[1])


def main() -> None:
    args = arguments()
    if args.side:
        one_side(args)
        return
    torch.manual_seed(0)
    kept = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        build(folder, args)
        print(f"two runs of rank {args.rank}, {args.matrices} matrices of {args.size} × {args.size}")
        for rule in RULES:
            (fast, low), (slow, high) = (measured(args, folder, rule, side) for side in ("streamed", "whole"))
            same = equal(folder, rule)
            print(f"  {rule:16s} streamed {fast:6.1f} s {low:6.0f} MiB, whole {slow:6.1f} s {high:6.0f} MiB, "
                  f"equal: {same}", flush=True)  # fmt: skip
            kept.append(same and low < high)
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
