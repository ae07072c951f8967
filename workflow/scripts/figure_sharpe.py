"""The figure of the analysis `sharpe`."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_sharpe import figure_sharpe
from memedynamics.job import run


def main(table: Path, figure: Path, notes: list[str]) -> None:
    """Draw `table` into `figure`; `notes` on the study go into the caption."""
    figures.save(figure_sharpe(tables.read(table, "sharpe"), notes), figure, "sharpe")


if __name__ == "__main__":
    run(main)
