"""The fixed texts that every policy scores: base samples of a seeded subset of prompts."""

from pathlib import Path

from memedynamics import tables
from memedynamics.config import Probes
from memedynamics.job import run
from memedynamics.probes import build


def main(samples: list[Path], data: list[Path], probes: Path, sizes: Probes, in_domain: str) -> None:
    columns = ["dataset", "split", "id", "sample", "token_ids", "correct", "format_ok", "reward"]
    memes = tables.read_all(data, "data", ["dataset", "split", "id", "label"])
    tables.write(build(tables.read_all(samples, "samples", columns), memes, sizes, in_domain), probes, "probes")


if __name__ == "__main__":
    run(main)
