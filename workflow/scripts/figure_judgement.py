"""The figure of the analysis `judgement`."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_judgement import figure_judgement
from memedynamics.job import run


def main(table: Path, figure: Path, notes: list[str]) -> None:
    """Draw `table` into `figure`; `notes` on the study go into the caption."""
    figures.save(figure_judgement(tables.read(table, "judgement"), notes), figure, "judgement")


if __name__ == "__main__":
    run(main)
