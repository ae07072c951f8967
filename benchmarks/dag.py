"""How planning grows with a study: time and memory of `snakemake -n` before anything ran, and of `snakemake` after.

    python benchmarks/dag.py [--largest 48]

Studies of 12, 24 and 48 methods × 5 seeds × 6 milestones × 4 datasets × 8 shards, files faked, Snakemake's own records
real. The claims, for the largest: at most 20 s and 1 GB before anything ran, 30 s on a finished study, where nothing
is to be done. Exits 1 where one fails.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
STUDY = "study.yaml"
SNAKEMAKE = ("-m", "snakemake")
# Snakemake sleeps a tenth of a second before it touches what a job made, so that times differ on every file system.
TOUCHING = (
    "-c",
    "from snakemake.executors import touch; touch.Executor.SLEEPING_TIME = 0.001; "
    "from snakemake.cli import main; main()",
)


# Linux counts what the caller held when it forked as the child's own peak: a small process stands between the two.
MEASURED = """
import os, subprocess, sys
_, status, used = os.wait4(subprocess.Popen(sys.argv[1:], stdout=sys.stderr).pid, 0)
print(used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Run(NamedTuple):
    """What one call took."""

    seconds: float
    gigabytes: float
    text: str


def study(methods: int, datasets: int = 4, seeds: int = 5, shards: int = 8) -> dict:
    """A study file with that many of each."""
    kinds = ("sft", "dpo", "grpo", "kto", "rloo", "rft", "em")
    drawn = {"reader": "pictograms", "splits": {"test": 24}}
    names = [f"other{number}" for number in range(datasets - 1)]
    return {
        "study": "large",
        "base_model": {"source": "demo", "dtype": "float32"},
        "prompt": "think_answer_text",
        "datasets": {"own": {**drawn, "splits": {"train": 96, "val": 24, "test": 24}}} | dict.fromkeys(names, drawn),
        "in_domain": "own",
        "out_of_domain": names,
        "sampling": {"shards": shards},
        "scoring": {"shards": shards},
        "methods": {f"{kinds[n % len(kinds)]}-{n}": {"kind": kinds[n % len(kinds)]} for n in range(methods)},
        "seeds": list(range(1, seeds + 1)),
        "milestones": [0, 0.0625, 0.125, 0.25, 0.5, 1],
    }


def snakemake(folder: Path, *arguments: str, how: tuple[str, ...] = SNAKEMAKE) -> Run:
    """One call, in a process whose time and peak memory are measured."""
    command = [sys.executable, *how, "--configfile", STUDY, *arguments]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", MEASURED, *command], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return Run(time.perf_counter() - start, int(done.stdout) / 2**20, done.stderr)


def fake(folder: Path) -> int:
    """Make every file that the study would make, empty, with Snakemake's records of it; how many there are."""
    listed = snakemake(folder, "--summary").text.splitlines()
    header = next(number for number, line in enumerate(listed) if line.startswith("output_file"))
    files = [folder / line.split("\t")[0] for line in listed[header + 1 :] if "\t" in line]
    for file in files:
        if file.suffix:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        else:
            file.mkdir(parents=True, exist_ok=True)
    snakemake(folder, "--touch", "--cores", "1000", "--quiet", "all", how=TOUCHING)
    return len(files)


def lay_out(folder: Path, methods: int) -> None:
    """A project in `folder` with a study of so many methods."""
    for part in ("Snakefile", "rules", "workflow", "config", "envs"):
        (folder / part).symlink_to(ROOT / part)
    (folder / STUDY).write_text(yaml.safe_dump(study(methods), sort_keys=False))


def measure(methods: int) -> tuple[Run, Run]:
    """Planning of a fresh study, every job printed, and a call on the finished one, which does nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder, methods)
        fresh = snakemake(folder, "-n")
        files = fake(folder)
        finished = snakemake(folder, "--cores", "1")
        assert "Nothing to be done" in finished.text, finished.text[-2000:]
        print(
            f"{methods:3d} methods, {files:6,d} files: fresh {fresh.seconds:5.1f} s {fresh.gigabytes:.2f} GiB, "
            f"finished {finished.seconds:5.1f} s {finished.gigabytes:.2f} GiB",
            flush=True,
        )
        return fresh, finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--largest", type=int, default=48, help="methods of the largest study")
    largest = parser.parse_args().largest
    for methods in (largest // 4, largest // 2, largest):
        fresh, finished = measure(methods)
    sys.exit(not (fresh.seconds <= 20 and fresh.gigabytes <= 1 and finished.seconds <= 30))


if __name__ == "__main__":
    main()
