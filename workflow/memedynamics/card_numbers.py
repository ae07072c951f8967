"""What a model card says of a run in numbers, out of the study's own tables: data, metrics, movement."""

from collections.abc import Mapping, Sequence

import polars as pl

from memedynamics.gather import BASE

METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "f1": "F1 (hateful)",
    "auroc": "AUROC",
    "format_share": "well-formed responses",
}
DIRECTIONS = {"forward": "forward, on the base's samples", "reverse": "reverse, on its own samples"}


def data(frames: Sequence[pl.DataFrame]) -> list[dict[str, object]]:
    """Memes and share of hateful ones by dataset and split; `frames`: schema `data`."""
    memes = pl.concat([frame.select("dataset", "split", "label") for frame in frames])
    counted = memes.group_by("dataset", "split").agg(memes=pl.len(), hateful=pl.col("label").mean())
    return [row | {"hateful": f"{row['hateful']:.1%}"} for row in counted.sort("dataset", "split").to_dicts()]


def metrics(accuracy: pl.DataFrame, method: str, seed: int) -> list[dict[str, object]]:
    """METRICS of the run at its end, with interval, beside the base's; `accuracy`: the analysis of that name."""
    rows = accuracy.filter(pl.col("versus").is_null(), pl.col("statistic").is_in(list(METRICS)))
    own = rows.filter(method=method, seed=seed, fraction=1.0, probe_kind="own_sample")
    before = rows.filter(method=BASE).select("dataset", "split", "statistic", *_shown("base_"))
    joined = own.join(before, on=["dataset", "split", "statistic"], how="left")
    order = pl.col("statistic").replace_strict({name: i for i, name in enumerate(METRICS)})
    return [
        {
            **{key: row[key] for key in ("dataset", "split", "n")},
            "metric": METRICS[row["statistic"]],
            "value": _interval(row, ""),
            "base": _interval(row, "base_"),
        }
        for row in joined.sort("dataset", "split", order).to_dicts()
    ]


def movement(kl: pl.DataFrame, method: str, seed: int) -> list[dict[str, object]]:
    """KL of whole responses between the base and the run at its end, nat, with interval; `kl`: the analysis."""
    whole = {"statistic": "per_response", "estimator": "exact", "span": "all"}
    own = kl.filter(pl.col("versus").is_null() & (pl.col("reference") == "base"))
    own = own.filter(method=method, seed=seed, fraction=1.0, **whole)
    return [
        {
            **{key: row[key] for key in ("dataset", "split", "n")},
            "direction": DIRECTIONS[row["direction"]],
            "value": _interval(row, ""),
        }
        for row in own.sort("dataset", "split", "direction").to_dicts()
        if row["direction"] in DIRECTIONS
    ]


def _shown(prefix: str) -> list[pl.Expr]:
    return [pl.col(name).alias(f"{prefix}{name}") for name in ("value", "ci_low", "ci_high")]


def _interval(row: Mapping[str, object], prefix: str) -> str:
    value, low, high = (row[f"{prefix}{name}"] for name in ("value", "ci_low", "ci_high"))
    if value is None:
        return "–"
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def settings(values: Mapping[str, object], above: str = "") -> list[tuple[str, object]]:
    """Nested settings as (dotted name, value); empty ones are left out."""
    found: list[tuple[str, object]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += settings(value, f"{above}{name}.")
        elif value is not None and value != []:
            found.append((f"{above}{name}", value))
    return found
