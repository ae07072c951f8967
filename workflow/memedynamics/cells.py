"""Where in the analyses' tables each number of the summary stands."""

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from memedynamics.gather import BASE
from memedynamics.perturbations import BLANK, CLEAN, NOISE

END = {"value": None, "ci_low": None, "ci_high": None}
COLUMNS = ["method", "seed", "fraction", "dataset", "split", *END, "n", "unit", "missing"]
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
_RANKED = {**_OWN, "estimator": None, "invalid": None, "span": None, "coverage": None}
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
    "auroc_error": Cell("entropy", "auroc_error", "val", {**_RANKED, "versus": None}),
    "milestone_correlation": Cell("entropy", "milestone_correlation", "val", {**_SURE, "versus": None}),
    "train_val_gap": Cell("accuracy", "probe_accuracy_gap", "train-val", {"versus": None}),
    "overfit_index": Cell("sharpe", "occlusion_overfit_index", "train-val", {**_PICTURE, "versus": None}),
}
# Two runs at the highest accuracy that both reach: such entropies belong to pairs, a run has none of its own.
MATCHED = Cell("entropy", "matched_entropy", "val", {**_SURE, "versus": None})
# Without the picture, and under the strongest noise: what that does to the policy's own greedy answers.


def perturbed(perturbation: str, statistic: str = "accuracy_change", after: str = "redrawn") -> Cell:
    """The cell of `statistic` under `perturbation`, of decisions `after` which text."""
    keys = {**LOOK, "perturbation": perturbation, "head": None, "after": after, "versus": None}
    return Cell("attention", statistic, "test", keys)


def noises(tables: Tables) -> list[str]:
    """The names of the noises that `attention` perturbed with, weakest first."""
    attention = tables.get("attention")
    names = [] if attention is None else attention["perturbation"].drop_nulls().unique().to_list()
    levels = sorted(int(name.removeprefix(NOISE)) for name in names if name.startswith(NOISE))
    return [f"{NOISE}{level}" for level in levels]


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
    rows = []
    cells = TABLE | {"blank_accuracy_change": perturbed(BLANK)}
    for noise in noises(tables)[-1:]:
        cells |= {"noise_accuracy": perturbed(noise, "decision_accuracy"), "noise_accuracy_change": perturbed(noise)}
    for name, cell in cells.items():
        rows += _of_runs(tables, cell, in_domain, {"statistic": name})
    return rows


def noise_rows(tables: Tables, in_domain: str) -> list[dict]:
    """Accuracy of the decision at every level of noise, `measure`, after the forced header, which alone has all."""
    own = {"statistic": "noise_accuracy_after_header"}
    cells = {name: perturbed(name, "decision_accuracy", "header") for name in (CLEAN, *noises(tables))}
    return [row for name, cell in cells.items() for row in _of_runs(tables, cell, in_domain, {**own, "measure": name})]


def _of_runs(tables: Tables, cell: Cell, in_domain: str, own: dict) -> list[dict]:
    found = pick(tables, cell, in_domain)
    if found.is_empty():
        return []
    return [{**own, **row} for row in found.filter(pl.col("method") != BASE).select(COLUMNS).to_dicts()]
