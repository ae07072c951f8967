"""The figure of the analysis `accuracy`."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_accuracy import figure_accuracy
from memedynamics.job import run


def main(table: Path, figure: Path, notes: list[str]) -> None:
    """Draw `table` into `figure`; `notes` on the study go into the caption."""
    figures.save(figure_accuracy(tables.read(table, "accuracy"), notes), figure, "accuracy")


if __name__ == "__main__":
    run(main)
