"""The figure of the analysis `attention`."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_attention import figure_attention
from memedynamics.job import run


def main(table: Path, figure: Path, notes: list[str]) -> None:
    """Draw `table` into `figure`; `notes` on the study go into the caption."""
    figures.save(figure_attention(tables.read(table, "attention"), notes), figure, "attention")


if __name__ == "__main__":
    run(main)
