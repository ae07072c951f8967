"""The figure of the analysis `rewards`."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_rewards import figure_rewards
from memedynamics.job import run


def main(table: Path, figure: Path, notes: list[str]) -> None:
    """Draw `table` into `figure`; `notes` on the study go into the caption."""
    figures.save(figure_rewards(tables.read(table, "rewards"), notes), figure, "rewards")


if __name__ == "__main__":
    run(main)
