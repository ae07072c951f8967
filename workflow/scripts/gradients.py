"""Cosines between the methods' gradients on every policy, by share of correct samples and by module."""

from pathlib import Path

import polars as pl

from memedynamics import gather, gradients, tables
from memedynamics.job import progress, run


def main(extracts: list[Path], runs: list[Path], data: list[Path], table: Path, resamples: int) -> None:
    """Write the analysis `gradients` of the files `extracts` of the runs and the base."""
    columns = ["fraction", "module", *gather.MEME, "place", "p", "objective", "inner", "parameters", "missing"]
    prompts = gather.prompts(data)
    # A run at a time: with all modules of a large model the inner products of many runs are gigabytes.
    found = [
        gradients.rows(gradients.checked(gather.frames([path], "extract_gradients", columns), path), prompts, resamples)
        for path in progress(extracts, "gradients")
    ]
    milestones = gather.milestones(runs)
    frame = gather.finish(gather.whole(pl.concat(found), milestones, "extracts"), milestones)
    tables.write(frame, table, "gradients")


if __name__ == "__main__":
    run(main)
