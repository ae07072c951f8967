"""The one way to write and read an artefact's table, by its schema.

A table is written under a temporary name and renamed, so a file that exists is whole; it carries its checksum.
Parquet metadata carry the provenance of the job that wrote it, each field its description and unit.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq

from memedynamics import checksums
from memedynamics.errors import InputError
from memedynamics.schemas import SCHEMAS

# Set once a job by `memedynamics.job.run`; ends up in the metadata of every table the job writes.
provenance: dict[str, object] = {}


def conform(table: pa.Table | pl.DataFrame, name: str) -> pa.Table:
    """`table` with the columns, order and types of schema `name`; `study` is filled in where it is missing.

    Raises InputError naming the column that is missing, unknown, empty or of another type.
    """
    schema = SCHEMAS[name]
    table = table.to_arrow() if isinstance(table, pl.DataFrame) else table
    if "study" in schema.names and "study" not in table.column_names:
        table = table.append_column("study", pa.array([provenance.get("study", "")] * len(table), pa.string()))
    if missing := set(schema.names) - set(table.column_names):
        raise InputError(f"table {name}: missing column {', '.join(sorted(missing))}")
    if unknown := set(table.column_names) - set(schema.names):
        raise InputError(f"table {name}: unknown column {', '.join(sorted(unknown))}")
    return pa.table([_cast(table[f.name], f, name) for f in schema], schema=schema)


def _cast(column: pa.ChunkedArray, target: pa.Field, name: str) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    try:
        column = column.cast(target.type)
    except pa.ArrowInvalid as error:
        raise InputError(f"table {name}, column {target.name}: {error}") from error
    if column.null_count and not target.nullable:
        raise InputError(f"table {name}, column {target.name}: {column.null_count} empty values")
    return column


def _described(schema: pa.Schema) -> pa.Schema:
    kept = {**provenance, checksums.KEY: checksums.BLANK}
    note = {"memedynamics": json.dumps(kept, sort_keys=True, default=str)}
    return schema.with_metadata(note)


class Writer:
    """Writes schema `name` batch by batch, one row group a batch; the file appears under `path` when closed whole."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = Path(path), name
        self.partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")

    def __enter__(self) -> "Writer":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.parquet = pq.ParquetWriter(self.partial, _described(SCHEMAS[self.name]), compression="zstd")
        except OSError:
            self.partial.unlink(missing_ok=True)
            raise
        return self

    def write(self, table: pa.Table | pl.DataFrame) -> None:
        """Append `table` as one row group."""
        rows = conform(table, self.name)
        if len(rows):
            self.parquet.write_table(rows, row_group_size=len(rows))

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.parquet.close()
            if kind is None:
                checksums.seal(self.partial)
                os.replace(self.partial, self.path)
        finally:
            self.partial.unlink(missing_ok=True)


def write(table: pa.Table | pl.DataFrame, path: Path, name: str) -> None:
    """Write `table` to `path` as schema `name`, checked and whole or not at all."""
    with Writer(path, name) as out:
        out.write(table)


def rows(path: Path, name: str) -> int:
    """How many rows the table at `path` has, from its footer alone.

    Raises InputError naming the file when it is missing, cut short, of another schema than `name`, or of another study
    than the job's own.
    """
    try:
        found = pq.read_metadata(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such table") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a whole Parquet file ({error}); delete it and run again") from error
    if missing := set(SCHEMAS[name].names) - set(found.schema.to_arrow_schema().names):
        raise InputError(f"{path}: not a '{name}' table, lacks {', '.join(sorted(missing))}")
    _refuse_other_study(path, _noted(found.metadata))
    return found.num_rows


def _refuse_other_study(path: Path, note: dict[str, object]) -> None:
    """Outside a job there is no study to compare with."""
    own = provenance.get("study")
    if own and (found := note.get("study", own)) != own:
        raise InputError(f"{path}: belongs to study {found!r}, not to {own!r}; delete it and run again")


def _noted(metadata: dict[bytes, bytes] | None) -> dict[str, object]:
    return json.loads((metadata or {}).get(b"memedynamics", b"{}"))


def read(path: Path, name: str, columns: list[str] | None = None) -> pl.DataFrame:
    """The table at `path` as schema `name`, categories as strings. Raises InputError as `rows` does."""
    rows(path, name)
    frame = pl.from_arrow(pq.read_table(path, columns=columns))
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String))


def read_all(paths: Iterable[Path], name: str, columns: list[str] | None = None) -> pl.DataFrame:
    """The tables at `paths`, read as schema `name` and stacked."""
    return pl.concat([read(path, name, columns) for path in paths])


def finite(frame: pl.DataFrame, where: Path | str) -> pl.DataFrame:
    """`frame` itself. Raises InputError naming `where` and the column that holds NaN or infinite values."""
    for column in frame.select(cs.float()):
        if count := int((~column.is_finite()).sum()):
            name = f"{where}, column {column.name}"
            raise InputError(f"{name}: {count} values are NaN or infinite; delete it and run again")
    return frame


def source(path: Path) -> dict[str, object]:
    """The provenance that the table at `path` carries; empty where it has none or is no whole table."""
    try:
        return _noted(pq.read_schema(path).metadata)
    except (pa.ArrowInvalid, OSError):
        return {}
