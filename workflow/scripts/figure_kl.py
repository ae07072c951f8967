"""The figure of the analysis `kl`."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_kl import figure_kl
from memedynamics.job import run


def main(table: Path, figure: Path, notes: list[str]) -> None:
    """Draw `table` into `figure`; `notes` on the study go into the caption."""
    figures.save(figure_kl(tables.read(table, "kl"), notes), figure, "kl")


if __name__ == "__main__":
    run(main)
