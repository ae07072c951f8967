"""The figure of the analysis `merge_path`."""

from pathlib import Path

from memedynamics import figures, tables
from memedynamics.figure_merge_path import figure_merge_path
from memedynamics.job import run


def main(table: Path, figure: Path, notes: list[str]) -> None:
    """Draw `table` into `figure`; `notes` on the study go into the caption."""
    figures.save(figure_merge_path(tables.read(table, "merge_path"), notes), figure, "merge_path")


if __name__ == "__main__":
    run(main)
