"""Two backends side by side: what TRL and LLaMA-Factory logged of the same method, step by step.

1. Twins are methods that differ in `backend` alone: kind, arguments, adapter and data are equal. Runs of one seed are
   compared with each other; metrics are compared where both backends log them under one name.
2. Values are the trainers' own, one logged number each (n = 1), without interval. Equal up to rounding is expected:
   float32 keeps a loss of ln 2 to 6e-8, and two versions of PyTorch sum in different orders.
"""

from collections.abc import Sequence

import polars as pl

UNITS = {"loss": "1", "grad_norm": "1", "learning_rate": "1", "rewards/accuracies": "1"}
UNITS |= {name: "nat" for name in ("rewards/chosen", "rewards/rejected", "rewards/margins")}
UNITS |= {name: "nat/response" for name in ("logps/chosen", "logps/rejected")}
RUN = ["method", "seed"]


def compared(history: pl.DataFrame, pairs: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """What both twins of `pairs` logged, from `history` (method, seed, step, metric, value).

    One row a method, seed, step and metric with statistic `logged`, and for the second twin one with statistic
    `difference`, its value minus that of the first, `versus`.
    """
    found = history.filter(pl.col("metric").is_in(list(UNITS)))
    parts = [_pair(found, first, second) for first, second in pairs]
    rows = pl.concat(parts).with_columns(unit=pl.col("metric").replace_strict(UNITS))
    return rows.unique(maintain_order=True)


def _pair(history: pl.DataFrame, first: str, second: str) -> pl.DataFrame:
    keys = ["seed", "step", "metric"]
    ours, theirs = (history.filter(pl.col("method") == name).select(*keys, "value") for name in (first, second))
    both = ours.join(theirs, on=keys, suffix="_other")
    apart = both.select(*keys, value=pl.col("value_other") - pl.col("value"))
    return pl.concat(
        [
            _rows(both.select(*keys, "value"), first, "logged", None),
            _rows(both.select(*keys, value="value_other"), second, "logged", None),
            _rows(apart, second, "difference", first),
        ]
    )


def _rows(values: pl.DataFrame, method: str, statistic: str, versus: str | None) -> pl.DataFrame:
    named = {"method": pl.lit(method), "statistic": pl.lit(statistic), "versus": pl.lit(versus, pl.String)}
    return values.with_columns(**named)


def table(rows: pl.DataFrame, totals: pl.DataFrame, dataset: str) -> pl.DataFrame:
    """`rows` of `compared` as the analysis; `totals`: method, seed, reference and total (steps) of every run."""
    joined = rows.join(totals, on=RUN).with_columns(
        fraction=pl.col("step") / pl.col("total"), dataset=pl.lit(dataset), split=pl.lit("train"), n=pl.lit(1),
        ci_low=pl.lit(None, pl.Float64), ci_high=pl.lit(None, pl.Float64), missing=pl.lit(None, pl.String),
    )  # fmt: skip
    return joined.drop("total").sort("method", "versus", "seed", "metric", "step", nulls_last=False)
