"""The figure of the analysis `summary`."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_summary import figure_summary
from memedynamics.job import run


def main(table: Path, figure: Path, notes: list[str]) -> None:
    """Draw `table` into `figure`; `notes` on the study go into the caption."""
    figures.save(figure_summary(tables.read(table, "summary"), notes), figure, "summary")


if __name__ == "__main__":
    run(main)
