"""Which rows of one analysis' table a sentence is about: levels, paired differences, the base's own row."""

import polars as pl

from memedynamics.cells import Cell, pick
from memedynamics.gather import BASE
from memedynamics.wording import Unit, interval

HOME = ("val", "train-val", "train", "all")  # splits that only the in-domain dataset has, and that of the weights


def home(frame: pl.DataFrame) -> str:
    """The in-domain dataset of a table: the one that has a val split, or train; empty for a table without rows."""
    for split in HOME:
        if found := frame.filter(pl.col("split") == split)["dataset"].to_list():
            return found[0]
    return next(iter(frame["dataset"].to_list()), "")


def levels(frame: pl.DataFrame, cell: Cell) -> pl.DataFrame:
    """The rows of `cell` at the end of training, one a run and dataset."""
    return pick({cell.analysis: frame}, cell, home(frame))


def differences(frame: pl.DataFrame, cell: Cell) -> pl.DataFrame:
    """The paired differences between methods of `cell` at the end of training."""
    keys = {key: value for key, value in cell.keys.items() if key != "versus"}
    return levels(frame, cell._replace(statistic=f"{cell.statistic}_difference", keys=keys))


def of_base(frame: pl.DataFrame, cell: Cell, unit: Unit) -> str:
    """The base's own value of `cell` with its interval; empty where it has none. It answers on samples of its own."""
    keys = {key: value for key, value in cell.keys.items() if key != "probe_kind"}
    base = frame.filter(pl.col("method") == BASE).with_columns(fraction=frame["fraction"].max())
    rows = levels(base.filter(pl.col("dataset") == home(frame)), cell._replace(keys=keys)).drop_nulls("value")
    return interval(rows.to_dicts()[0], unit) if len(rows) else ""
