"""Join the shards of one set of samples, in an order that does not depend on their number, and grade them."""

from pathlib import Path

from memedynamics import tables
from memedynamics.grading import graded
from memedynamics.job import run
from memedynamics.prompts import Prompt


def main(shards: list[Path], data: list[Path], samples: Path, prompt: Prompt, rewards: dict[str, float]) -> None:
    drawn = tables.read_all(shards, "drawn").sort("fraction", "dataset", "split", "id", "sample")
    memes = tables.read_all(data, "data", ["dataset", "split", "id", "label", "text"])
    tables.write(graded(drawn, memes, rewards, prompt), samples, "samples")


if __name__ == "__main__":
    run(main)
