"""What two backends logged of the same method, step by step."""

from pathlib import Path

import polars as pl

from memedynamics import gather, parity, tables
from memedynamics.job import run


def main(histories: list[Path], runs: list[Path], table: Path, twins: list[tuple[str, str]], in_domain: str) -> None:
    """Write the analysis `parity`; `twins` are method names, TRL's first (`lineage.twins`)."""
    logged = gather.frames(histories, "history", ["step", "metric", "value"], empty=True)
    ends = gather.milestones(runs).filter(pl.col("fraction") == 1).drop_nulls("step")
    totals = ends.select(*parity.RUN, "reference", total="step")
    rows = parity.compared(logged.with_columns(pl.col("metric").cast(pl.String)), twins)
    tables.write(parity.table(rows, totals, in_domain), table, "parity")


if __name__ == "__main__":
    run(main)
