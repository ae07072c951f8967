"""Where intervals rest on too few clusters for a sentence to claim a side, as a claim of the summary could not.

A table counts items, which may share captions or layers. What is known of their clusters is their most: the items; the
decoder layers, of the weights; and under ten where the summary says so of as many memes of the same split.
"""

from collections.abc import Sequence

import polars as pl

from memedynamics import claims

KEY = ["question", "method", "versus", "measure", "dataset", "split"]  # of a claim
MOST = "most clusters"  # a column that no table has: tables' own names have no spaces


def with_most(frame: pl.DataFrame, summary: pl.DataFrame | None = None) -> pl.DataFrame:
    """`frame`, an analysis' table, with column MOST: the most clusters that a row can rest on; null where n is."""
    most = pl.col("n").cast(pl.Int64)
    layers = frame["layer"].drop_nulls().n_unique() if "layer" in frame.columns else 0
    if layers:
        most = pl.when(pl.col("dataset") == "all").then(pl.min_horizontal(most, pl.lit(layers))).otherwise(most)
    for (dataset, split), items in _few_of(summary).items():
        here = (pl.col("dataset") == dataset) & (pl.col("split") == split) & (pl.col("n") <= items)
        most = pl.when(here).then(pl.min_horizontal(most, pl.lit(claims.FEWEST - 1))).otherwise(most)
    return frame.with_columns(most.alias(MOST))


def _few_of(summary: pl.DataFrame | None) -> dict[tuple[str, str], int]:
    """By dataset and split, of how many memes the summary says that they are under ten clusters."""
    if summary is None:
        return {}
    told = summary.filter(pl.col("statistic") == "p_holm", pl.col("verdict") == claims.FEW, pl.col("dataset") != "all")
    rows = summary.filter(pl.col("statistic") == "difference").drop_nulls("value")
    # Of a claim's seeds the smallest is known to be too few; of claims the largest such.
    least = rows.join(told, on=KEY, how="semi", nulls_equal=True).group_by(KEY).agg(pl.col("n").min())
    most = least.group_by("dataset", "split").agg(pl.col("n").max())
    return {(dataset, split): n for dataset, split, n in most.rows()}


def few(rows: Sequence[dict]) -> bool:
    """Whether any of `rows`, of an analysis' table, is known to rest on too few clusters."""
    counts = [row.get(MOST, row["n"]) for row in rows]
    return any(count is not None and count < claims.FEWEST for count in counts)
