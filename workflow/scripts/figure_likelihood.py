"""The figure of the analysis `likelihood`."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_likelihood import figure_likelihood
from memedynamics.job import run


def main(table: Path, figure: Path, notes: list[str]) -> None:
    """Draw `table` into `figure`; `notes` on the study go into the caption."""
    figures.save(figure_likelihood(tables.read(table, "likelihood"), notes), figure, "likelihood")


if __name__ == "__main__":
    run(main)
