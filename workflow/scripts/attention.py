"""Where every run's last prompt token looks, and what noise on the picture does to it and to the decision."""

from pathlib import Path

from memedynamics import attention, attention_frames, gather, tables
from memedynamics.job import run


def main(extracts: list[Path], runs: list[Path], data: list[Path], table: Path, resamples: int) -> None:
    """Write the analysis `attention` of the extracts of the runs and the base."""
    layers, means, decided = attention_frames.by_meme(extracts)
    milestones = gather.milestones(runs)
    gather.whole(means, milestones, "extracts")
    frame = attention.measure(layers, means, decided, gather.prompts(data), milestones, resamples)
    tables.write(frame, table, "attention")


if __name__ == "__main__":
    run(main)
