"""What training costs with memory that malloc keeps against memory that it gives back, side by side in one run.

    PYTHONPATH=workflow python benchmarks/malloc.py

The demo's base model is trained twice, in processes of their own: as jobs are (`environment.MALLOC`), and with glibc's
own settings. The claims: the same bytes, and half of the time that the system takes. Exits 1 where one fails.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl

from memedynamics import environment
from memedynamics.config import DemoTraining
from memedynamics.job import contents
from memedynamics.pictograms import rows
from memedynamics.prompts import load_prompt

ROOT = Path(__file__).parents[1]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--memes", type=int, default=64)
    parser.add_argument(
        "--folder", type=Path, help="train into this folder and print the cost (what a process is given)"
    )
    return parser.parse_args()


def train(folder: Path, steps: int, memes: int) -> None:
    """Train, and print seconds of CPU in this program and in the system, and page faults, of the training alone."""
    from memedynamics.demo_model import build_and_train

    data = pl.DataFrame(
        [{**row, "image": str(row["image"])} for row in rows("train", memes, "filled", folder / "pictures")]
    )
    prompt = load_prompt(ROOT / "config/prompts/think_answer_text.yaml")
    before = resource.getrusage(resource.RUSAGE_SELF)
    model = folder / "model"
    model.mkdir()
    build_and_train(data, prompt, "hateful", DemoTraining(steps=steps), model, 1, folder)
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(*(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime", "ru_minflt")))


def measured(folder: Path, options: argparse.Namespace, **settings: str) -> list[float]:
    """User seconds, system seconds and page faults of one training in a process with `settings`."""
    plain = {name: value for name, value in os.environ.items() if name not in environment.MALLOC}
    folder.mkdir()
    command = [sys.executable, __file__, "--steps", options.steps, "--memes", options.memes, "--folder", folder]
    done = subprocess.run(list(map(str, command)), env=plain | settings, stdout=subprocess.PIPE, text=True, check=True)
    return [float(number) for number in done.stdout.split()]


def main() -> int:
    options = arguments()
    if options.folder:
        train(options.folder, options.steps, options.memes)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary, name) for name in ("kept", "returned")]
        kept = measured(folders[0], options, **{name: str(size) for name, size in environment.MALLOC.items()})
        returned = measured(folders[1], options)
        equal = contents(folders[0] / "model") == contents(folders[1] / "model")
    for name, (user, system, faults) in (("kept", kept), ("given back", returned)):
        print(f"{name:10} {user + system:6.1f} s of CPU, {system:5.1f} s in the system, {faults:,.0f} page faults")
    share, systems = sum(kept[:2]) / sum(returned[:2]), kept[1] / returned[1]
    print(f"{share:.2f} of the CPU time, {systems:.2f} of the system's; bytes equal: {equal}")
    return int(not (equal and systems < 0.5))


if __name__ == "__main__":
    sys.exit(main())
