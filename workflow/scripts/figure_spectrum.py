"""The figure of the analysis `spectrum`."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_spectrum import figure_spectrum
from memedynamics.job import run


def main(table: Path, figure: Path, notes: list[str]) -> None:
    """Draw `table` into `figure`; `notes` on the study go into the caption."""
    figures.save(figure_spectrum(tables.read(table, "spectrum"), notes), figure, "spectrum")


if __name__ == "__main__":
    run(main)
