"""The figure of the analysis `entropy`."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_entropy import figure_entropy
from memedynamics.job import run


def main(table: Path, figure: Path, notes: list[str]) -> None:
    """Draw `table` into `figure`; `notes` on the study go into the caption."""
    figures.save(figure_entropy(tables.read(table, "entropy"), notes), figure, "entropy")


if __name__ == "__main__":
    run(main)
