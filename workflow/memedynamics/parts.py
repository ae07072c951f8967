"""Batches finished so far, as part files that survive a kill.

A job writes each batch as it is done; run again, it skips what lies there. The folder is private to one job and
keyed by everything that job depends on (`rules/common.smk`), so a part that exists is a part that is valid.
"""

from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from memedynamics import checksums, tables


class Parts:
    """Part files of table `name` under `work`, one a batch."""

    def __init__(self, work: Path, name: str) -> None:
        self.folder, self.name = Path(work) / name, name

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.parquet"

    def done(self, key: str) -> bool:
        """Whether batch `key` is on disk, whole: parts are renamed into place."""
        return self._path(key).exists()

    def write(self, key: str, frame: pl.DataFrame | pa.Table) -> None:
        """Put batch `key` on disk."""
        tables.write(frame, self._path(key), self.name)

    def merge(self, keys: Iterable[str], output: Path) -> None:
        """Join the parts `keys`, in that order, into the table `output`, one row group a part."""
        with tables.Writer(output, self.name) as out:
            for key in keys:
                checksums.check(self._path(key))
                out.write(pq.read_table(self._path(key)))
