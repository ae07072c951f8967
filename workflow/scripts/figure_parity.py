"""The figure of the analysis `parity`."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_parity import figure_parity
from memedynamics.job import run


def main(table: Path, figure: Path, notes: list[str]) -> None:
    """Draw `table` into `figure`; `notes` on the study go into the caption."""
    figures.save(figure_parity(tables.read(table, "parity"), notes), figure, "parity")


if __name__ == "__main__":
    run(main)
