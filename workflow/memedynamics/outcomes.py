"""What each run did to accuracy, format and distance from the base, as texts with intervals."""

import polars as pl

from memedynamics.figures import ordered
from memedynamics.gather import BASE

RUN, SET = ["method", "seed"], ["dataset", "split"]
END = pl.col("fraction") == pl.col("fraction").max().over("method", "seed")


def summary(accuracy: pl.DataFrame, kl: pl.DataFrame) -> pl.DataFrame:
    """One row a run at its last milestone: method, seed, and as text with 95 % intervals the closing table's columns.

    `accuracy`, `kl`: tables of these analyses. In domain is the dataset that has a val split; of several sets out of
    domain each has a line that begins with its name and a colon.
    """
    val, home = pl.col("split") == "val", accuracy.filter(pl.col("split") == "val")["dataset"].unique().to_list()
    alone = accuracy.filter(val & pl.col("versus").is_null())
    forward = kl.filter(
        (pl.col("direction") == "forward") & (pl.col("estimator") == "exact") & (pl.col("span") == "all")
    ).filter((pl.col("statistic") == "per_response") & pl.col("versus").is_null())
    columns = {
        "accuracy after": _written(alone.filter(pl.col("statistic") == "accuracy"), 100, "{:.1f}"),
        "format": _written(alone.filter(pl.col("statistic") == "format_share"), 100, "{:.0f}"),
        "KL in domain": _written(forward.filter(val), 1, "{:.2f}"),
        "KL out of domain": _named(_written(forward.filter(~pl.col("dataset").is_in(home)), 1, "{:.2f}")),
    }
    found = alone.select(RUN).unique()
    for name, column in columns.items():
        found = found.join(column.select(*RUN, pl.col("text").alias(name)), on=RUN, how="left", nulls_equal=True)
    before = found.filter(pl.col("method") == BASE)["accuracy after"].to_list()
    found = found.with_columns(pl.lit(next(iter(before), None)).alias("accuracy before"))
    order = pl.Enum(ordered(found["method"].to_list()))
    return found.filter(pl.col("method") != BASE).sort(pl.col("method").cast(order), "seed")


def _written(rows: pl.DataFrame, scale: float, pattern: str) -> pl.DataFrame:
    """RUN, dataset, split, text: the value of each run's last milestone with its interval."""
    last = rows.filter(END)
    texts = [_text(numbers, scale, pattern) for numbers in last.select("value", "ci_low", "ci_high").rows()]
    return last.select(*RUN, *SET).with_columns(text=pl.Series(texts, dtype=pl.String))


def _named(texts: pl.DataFrame) -> pl.DataFrame:
    """`texts` (`_written`), of several sets joined: a line each, in one order for all runs, dashes for what lacks."""
    sets = texts.select(SET).unique().sort(SET)
    if len(sets) < 2:
        return texts
    twice = sets["dataset"].is_duplicated()
    names = [" ".join(place if more else place[:1]) for place, more in zip(sets.rows(), twice, strict=True)]
    lines = texts.select(RUN).unique().join(sets.with_columns(name=pl.Series(names)), how="cross")
    lines = lines.join(texts, on=[*RUN, *SET], how="left", nulls_equal=True).sort(SET)
    line = pl.format("{}: {}", "name", pl.col("text").fill_null("–"))
    return lines.group_by(RUN).agg(text=line.str.join("\n"))


def _text(numbers: tuple[float | None, ...], scale: float, pattern: str) -> str:
    value, low, high = ("–" if number is None else pattern.format(scale * number) for number in numbers)
    return f"{value} [{low}, {high}]"
