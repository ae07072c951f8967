"""An analysis's table for the report: whole as CSV and Parquet, and packed for the page's own table.

On the page, columns in which all rows agree are told once. Of a table of more than MOST rows it shows a part, and says
which: what is of no one module, layer or cell, then what compares nothing, then the runs' ends, at last the first MOST.
The milestones go last, since the page's filter of milestones acts on the table too.
"""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from memedynamics import schemas, tables

MOST = 20_000  # rows: what a browser sorts and searches at once without a pause
DIGITS = 5
COMMON = frozenset(schemas.analysis_schema().names)
# What a narrow screen shows without scrolling.
FIRST = ("method", "seed", "fraction", "dataset", "split", "statistic", "value", "ci_low", "ci_high", "n", "unit")


class Column(NamedTuple):
    """A column of the page's table: its name, what its schema says of it, its values."""

    name: str
    description: str
    unit: str
    values: list  # numbers, or places in `levels`; None where empty
    levels: list[str] | None  # the texts of a column of texts


class Shown(NamedTuple):
    """A table as the page has it: columns, how many rows of how many and which, and what all rows have in common."""

    columns: list[Column]
    rows: int
    total: int
    part: list[str]  # what was chosen of more than MOST rows
    common: dict[str, str]

    def packed(self) -> dict[str, object]:
        """What index_tables.js takes."""
        return {"columns": [{"name": each.name, "values": each.values, "levels": each.levels} for each in self.columns]}


def download(table: Path, name: str, folder: Path) -> None:
    """The table of the analysis `name` in `folder`, as the file it is and as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(table, folder / f"{name}.parquet")
    tables.read(table, name).write_csv(folder / f"{name}.csv")


def shown(frame: pl.DataFrame, name: str) -> Shown:
    """`frame`, the table of the analysis `name`, as the page shows it."""
    kept, part = _part(frame)
    same = [column for column in kept.columns if kept[column].n_unique() <= 1]
    common = {column: _said(kept[column][0]) for column in same if len(kept) and kept[column][0] is not None}
    order = [*(column for column in FIRST if column in kept.columns), *kept.columns]
    different = kept.select(column for column in dict.fromkeys(order) if column not in same)
    columns = [_column(schemas.SCHEMAS[name].field(each.name), each) for each in different]
    return Shown(columns, len(kept), len(frame), part, common)


def _part(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """The rows of `frame` to show, and what they were chosen by, as few choices as needed."""
    said = []
    for text, rows in _choices(frame):
        if len(frame) > MOST and 0 < len(left := frame.filter(rows)) < len(frame):
            frame, said = left, [*said, text]
    return frame.head(MOST), [*said, "the first of these"] if len(frame) > MOST else said


def _choices(frame: pl.DataFrame) -> Iterator[tuple[str, pl.Expr]]:
    own = [name for name in frame.columns if name not in COMMON and frame[name].n_unique() > 1]
    for name in own:
        if not frame[name].dtype.is_numeric() and (frame[name] == "all").any():
            yield f"{name} is all", pl.col(name) == "all"
    for name in sorted(own, key=lambda name: not frame[name].dtype.is_numeric()):
        if frame[name].has_nulls() and (frame[name].dtype.is_numeric() or name == "versus"):
            yield f"{name} is empty", pl.col(name).is_null()
    yield "of milestones the runs’ ends alone", pl.col("fraction") == pl.col("fraction").max().over("method", "seed")


def _said(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _column(field: pa.Field, values: pl.Series) -> Column:
    told = {key.decode(): text.decode() for key, text in (field.metadata or {}).items()}
    about = field.name, told.get("description", ""), told.get("unit", "")
    if values.dtype.is_numeric():
        # The filters compare milestones, which are told apart by six digits; the page writes five.
        return Column(*about, [_short(value, 17 if field.name == "fraction" else DIGITS) for value in values], None)
    texts = values.cast(pl.String)
    levels = texts.drop_nulls().unique(maintain_order=True).to_list()
    places = {text: place for place, text in enumerate(levels)}
    return Column(*about, [places.get(text) for text in texts], levels)


def _short(value: float | int | None, digits: int) -> float | int | None:
    if not isinstance(value, float):
        return value
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
