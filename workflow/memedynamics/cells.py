"""Where in the analyses' tables each number of the summary stands."""

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from memedynamics.gather import BASE

END = {"value": None, "ci_low": None, "ci_high": None}
Tables = Mapping[str, pl.DataFrame]


class Cell(NamedTuple):
    """Which rows of an analysis hold a number: its statistic, its keys (None: empty) and where it was measured."""

    analysis: str
    statistic: str
    place: str  # val, test, train-val, out (of domain) or all
    keys: Mapping[str, str | None]


_OWN = {"probe_kind": "own_sample"}
_MOVED = {"probe_kind": "base_sample", "direction": "forward", "estimator": "exact", "span": "all"}
_UPDATE = {"update": "trained", "kind": "all", "layer": None, "index": None}
LOOK = {"policy": "trained", "perturbation": "clean", "layer": None, "head": "mean", "cell": None, "after": None}
_SURE = {**_OWN, "estimator": "exact", "invalid": "forced", "span": None, "coverage": None}
_PICTURE = {"group": "image", "module": None, "label": "all"}

TABLE: dict[str, Cell] = {
    "accuracy": Cell("accuracy", "accuracy", "val", {**_OWN, "versus": None}),
    "accuracy_gain": Cell("accuracy", "accuracy_difference", "val", {**_OWN, "versus": BASE}),
    "accuracy_gain_out_of_domain": Cell("accuracy", "accuracy_difference", "out", {**_OWN, "versus": BASE}),
    "forward_kl": Cell("kl", "per_response", "val", {**_MOVED, "versus": None}),
    "forward_kl_out_of_domain": Cell("kl", "per_response", "out", {**_MOVED, "versus": None}),
    "displaced_share": Cell("likelihood", "displaced_share", "val", {"pair_type": "all", "versus": None}),
    "effective_rank": Cell("spectrum", "effective_rank", "all", {**_UPDATE, "versus": None}),
    "effective_rank_at_norm": Cell("spectrum", "effective_rank_at_norm", "all", {**_UPDATE, "versus": None}),
    "image_attention": Cell("attention", "image_share", "test", {**LOOK, "versus": None}),
    "image_attention_shift": Cell("attention", "image_share_difference", "test", {**LOOK, "versus": BASE}),
    "decision_entropy": Cell("entropy", "entropy", "val", {**_SURE, "versus": None}),
    "train_val_gap": Cell("accuracy", "probe_accuracy_gap", "train-val", {"versus": None}),
    "overfit_index": Cell("sharpe", "occlusion_overfit_index", "train-val", {**_PICTURE, "versus": None}),
}
# Without the picture, and under the strongest noise: what that does to the policy's own greedy answers.
BLANK = "blank"


def perturbed(perturbation: str, statistic: str = "accuracy_change") -> Cell:
    """The cell of `statistic` of redrawn answers under `perturbation`."""
    keys = {**LOOK, "perturbation": perturbation, "head": None, "after": "redrawn", "versus": None}
    return Cell("attention", statistic, "test", keys)


def strongest_noise(tables: Tables) -> str | None:
    """The name of the strongest noise that `attention` perturbed with."""
    attention = tables.get("attention")
    names = [] if attention is None else attention["perturbation"].drop_nulls().unique().to_list()
    levels = [int(name.removeprefix("noise_")) for name in names if name.startswith("noise_")]
    return f"noise_{max(levels)}" if levels else None


def pick(tables: Tables, cell: Cell, in_domain: str) -> pl.DataFrame:
    """The rows of `cell` at the end of training, as they stand in their analysis; none where it was not made."""
    frame = tables.get(cell.analysis)
    if frame is None:
        return pl.DataFrame(schema={name: pl.String for name in ("method", "dataset", "split", "versus")})
    home = pl.col("dataset") == in_domain
    places = {"all": pl.lit(True), "out": ~home & (pl.col("split") == "test")}
    where = places.get(cell.place, home & (pl.col("split") == cell.place))
    keys = [pl.col(key).is_null() if value is None else pl.col(key) == value for key, value in cell.keys.items()]
    last = pl.col("fraction") == frame["fraction"].max()
    return frame.filter(pl.col("statistic") == cell.statistic, last, where, *keys)


def table_rows(tables: Tables, in_domain: str) -> list[dict]:
    """A row a number and run, with the reason where a run has none: TABLE, and the picture gone or under noise."""
    columns = ["method", "seed", "fraction", "dataset", "split", *END, "n", "unit", "missing"]
    rows = []
    noise = strongest_noise(tables)
    cells = TABLE | {"blank_accuracy_change": perturbed(BLANK)}
    cells |= {"noise_accuracy_change": perturbed(noise)} if noise else {}
    for name, cell in cells.items():
        found = pick(tables, cell, in_domain).filter(pl.col("method") != BASE)
        rows += [{"statistic": name, **row} for row in found.select(columns).to_dicts()] if len(found) else []
    return rows
