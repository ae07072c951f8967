"""Accuracy and forward KL of the models between two runs, along the straight line and along the arc."""

from pathlib import Path

from memedynamics import gather, merge_path, tables
from memedynamics.job import run

COLUMNS = ["way", "t", *gather.MEME, "sample", "p_hateful", "kl_forward"]


def main(
    extracts: list[Path],
    runs: list[Path],
    data: list[Path],
    table: Path,
    pairs: list[tuple[str, str]],
    resamples: int,
) -> None:
    """Write the analysis `merge_path` of `extracts`, files extracts/merge_path/first__second/seed{seed}.parquet."""
    found = gather.frames(extracts, "extract_merge_path", COLUMNS)
    frame = merge_path.measure(found, pairs, gather.prompts(data), gather.milestones(runs), resamples)
    tables.write(frame, table, "merge_path")


if __name__ == "__main__":
    run(main)
