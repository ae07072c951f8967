"""Sentences on an analysis of which nothing is known but its table's common columns."""

import polars as pl

from memedynamics import ranked, schemas, wording
from memedynamics.few_clusters import MOST
from memedynamics.gather import BASE

COMMON = (*schemas.analysis_schema().names, MOST)
SPLITS = ("val", "test", "train")


def generic_sentences(frame: pl.DataFrame) -> list[str]:
    """The first statistic of `frame` at the end of training: who has most, who least, and whether that is sure."""
    frame = frame.with_columns(pl.col("value", "ci_low", "ci_high").cast(pl.Float64))
    rows = ranked.policies(frame)
    if rows.is_empty():
        return [_nothing(frame)]
    rows = _first(rows.filter(pl.col("fraction") == pl.col("fraction").max()))
    statistic, unit, where = rows["statistic"][0], wording.of(rows["unit"][0]), wording.place(rows)
    told = ranked.ranking(rows, unit, "{} has most, {}", "{} least, {}", "items")
    base = _same(frame.filter(pl.col("method") == BASE), rows).drop_nulls("value").to_dicts()[:1]
    found = [f"{statistic.replace('_', ' ')} on {where}, at the end of training: {told}"]
    found += [f"the base has {wording.interval(row, unit)}" for row in base]
    return list(map(wording.sentence, filter(None, [*found, ranked.lead(rows)])))


def _nothing(frame: pl.DataFrame) -> str:
    reasons = frame["missing"].drop_nulls().unique(maintain_order=True).to_list()
    return f"No trained policy has a value in this table{': ' if reasons else ''}{'; '.join(reasons)}."


def _first(rows: pl.DataFrame) -> pl.DataFrame:
    """One row a run: val where there is one, no comparison, and the first of every further key."""
    splits = [split for split in SPLITS if split in rows["split"].to_list()] or rows["split"].to_list()
    rows = rows.filter(pl.col("split") == splits[0])
    if "versus" in rows.columns and rows["versus"].is_null().any():
        rows = rows.filter(pl.col("versus").is_null())
    for key in ("dataset", "statistic", *(name for name in rows.columns if name not in COMMON)):
        rows = rows.filter(pl.col(key).eq_missing(_widest(rows[key])))
    return rows.unique(["method", "seed"], keep="first", maintain_order=True)


def _widest(column: pl.Series) -> object:
    """`all` or an empty key where there is one, which say that rows are not of a part; else the first."""
    found = column.to_list()
    return "all" if "all" in found else None if None in found else found[0]


def _same(base: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of `base` with the keys of `rows` (equal but for the run), whoever's samples they are of."""
    keys = ["statistic", "dataset", "split", *(name for name in rows.columns if name not in (*COMMON, "probe_kind"))]
    first = rows.row(0, named=True)
    return base.filter(*(pl.col(key).eq_missing(first[key]) for key in keys))
