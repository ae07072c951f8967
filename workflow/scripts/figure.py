"""One analysis drawn: html for the screen, pdf, svg or png for a paper."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_accuracy import figure_accuracy
from memedynamics.figure_kl import figure_kl
from memedynamics.job import run

DRAW = {"accuracy": figure_accuracy, "kl": figure_kl}


def main(table: Path, figure: Path, name: str) -> None:
    """Draw the analysis `name` of `table` into `figure`, whose suffix is the format."""
    figures.save(DRAW[name](tables.read(table, name)), figure, name)


if __name__ == "__main__":
    run(main)
