"""Join the shards of one split's base samples, in the order of the split's ids."""

from pathlib import Path

from memedynamics import tables
from memedynamics.job import run


def main(shards: list[Path], samples: Path) -> None:
    frame = tables.read_all(shards, "samples").sort("id", "sample")
    tables.write(frame, samples, "samples")


if __name__ == "__main__":
    run(main)
