"""Small tables of texts, for a page's templates."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table


class Plain(NamedTuple):
    """A table of texts: heads, rows, how many columns stand before those of numbers, and of each row the run it is of,
    where it is of one.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int  # all columns where none is of numbers
    runs: Sequence[tuple[str, str] | None]  # method, seed


def rows(heads: Sequence[str], found: Sequence[Sequence[str]], names: int | None = None) -> Plain:
    """A table whose rows are of no run."""
    return Plain(heads, found, len(heads) if names is None else names, [None] * len(found))


def of_runs(heads: Sequence[str], found: Sequence[Sequence[str]]) -> Plain:
    """A table whose rows begin with method and seed; all else are numbers."""
    return Plain(heads, found, 2, [(row[0], row[1]) for row in found])


def printed(table: Table) -> Plain:
    """A table made for the terminal, whose columns of numbers stand to the right."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    heads = [" ".join(str(column.header).split()) for column in table.columns]
    names = sum(column.justify == "left" for column in table.columns)
    return rows(heads, list(zip(*columns, strict=True)), names)
