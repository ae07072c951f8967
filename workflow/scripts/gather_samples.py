"""Join the shards of one set of samples, in an order that does not depend on their number."""

from pathlib import Path

from memedynamics import tables
from memedynamics.job import run


def main(shards: list[Path], samples: Path) -> None:
    frame = tables.read_all(shards, "samples").sort("fraction", "dataset", "split", "id", "sample")
    tables.write(frame, samples, "samples")


if __name__ == "__main__":
    run(main)
