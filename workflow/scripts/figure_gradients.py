"""The figure of the analysis `gradients`."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_gradients import figure_gradients
from memedynamics.job import run


def main(table: Path, figure: Path, notes: list[str]) -> None:
    """Draw `table` into `figure`; `notes` on the study go into the caption."""
    figures.save(figure_gradients(tables.read(table, "gradients"), notes), figure, "gradients")


if __name__ == "__main__":
    run(main)
