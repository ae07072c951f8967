"""Figure of the analysis `sharpe`: which features speak for the label on train more than on val; gradients' signal."""

from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels
from memedynamics.gather import BASE
from memedynamics.sharpe import GROUPS
from memedynamics.sharpe_check import DISAGREES

NOTE = (
    "SR: mean over standard deviation, over memes, of what a feature adds to the decision’s log-odds toward the gold "
    "label, behind the base’s own rationale. a, b: what is lost<br>when the feature’s tokens are replaced by the mean "
    "embedding and the model runs again (occlusion). c: gradient × input (φ), a first-order reading of the same, on "
    "twice<br>as many memes. g: correlation of the two; where its interval is not above 0 on train and val, of the run "
    "and of the base, c is left out. a–c, g: end of training.<br>Overfit index: SR on train minus SR on val, less that "
    "of the base, which saw neither; above 0 the feature speaks more reliably for labels that were trained on.<br>"
    "d, e: Σḡ²/Σs² − 1/n of the gradients of the gold answer’s NLL; 0 is noise alone. f: what a step on the train "
    "memes does for val, relative to train; 1: just as much.<br>"
    "h: of φ, whose signs do not enter; trust it as far as g. Bars: 95 % cluster bootstrap over memes."
)
NAMES = {"rationale": "rationale", "format": "format<br>tags"}
LABELS = [(group, NAMES.get(group, group)) for group in GROUPS]


def figure_sharpe(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `sharpe`; `notes` on the study close its caption."""
    third, half = [{"colspan": 2}, None], [{"colspan": 3}, None, None]
    specs = [[{"colspan": 6}, *[None] * 5], half * 2, third * 3, [{"colspan": 4}, None, None, None, *third]]
    figure = make_subplots(rows=4, cols=6, specs=specs, vertical_spacing=0.085, horizontal_spacing=0.085)
    home = frame.filter(split="train-val")["dataset"].unique().to_list()
    alone = frame.filter(pl.col("versus").is_null() & (pl.col("label") == "all"))
    own = alone.filter(pl.col("dataset").is_in(home))
    last = own.filter((pl.col("method") == BASE) | (pl.col("fraction") == pl.col("fraction").max()))
    _ratios(figure, last)
    added, unit = _added(frame), "(SR train − SR val) − base’s"
    index = "overfit_index_difference"
    _by_group(figure, 2, 1, "b", "Overfit index that training added", added, f"occlusion_{index}", unit)
    _by_group(figure, 2, 4, "c", "The same by φ, where φ agrees with occlusion", added, index, unit)
    _along(figure, 3, 1, "d", "Gradients’ signal to noise, train", own.filter(split="train"), "snr", "SNR")
    _along(figure, 3, 3, "e", "Gradients’ signal to noise, val", own.filter(split="val"), "snr", "SNR")
    _along(figure, 3, 5, "f", "A train step’s use for val", own, "osgr_measured", "gain on val / on train")
    val = last.filter(split="val")
    _by_group(figure, 4, 1, "g", "Check: φ against occlusion, val", val, "occlusion_correlation", "correlation")
    _along(figure, 4, 5, "h", "Picture against words, val", own.filter(split="val"), "importance_ratio", "Σ|φ| : Σ|φ|")
    kept = frame.filter(pl.col("missing").ne_missing(DISAGREES))
    return figures.finish(figure, kept, "Which features each method overfits", NOTE, 4, notes)


def _added(frame: pl.DataFrame) -> pl.DataFrame:
    """What the end of training differs from the base by."""
    return frame.filter(
        pl.col("versus") == BASE, pl.col("label") == "all", pl.col("fraction") == pl.col("fraction").max()
    )


def _ratios(figure: go.Figure, last: pl.DataFrame) -> None:
    panels.title(figure, 1, 1, "a", "How reliably each feature speaks for the gold label: train beside val")
    rows = last.filter(pl.col("statistic") == "occlusion_sharpe_ratio", pl.col("split").is_in(["train", "val"]))
    rows = rows.with_columns(place=pl.concat_str("group", "split", separator=" "))
    labels = [(f"{group} {split}", f"{group}<br>{split}") for group in GROUPS for split in ("train", "val")]
    panels.groups(figure, 1, 1, rows, "place", labels, "Sharpe ratio")
    _zero(figure, 1, 1)


def _by_group(
    figure: go.Figure, row: int, col: int, letter: str, text: str, rows: pl.DataFrame, statistic: str, unit: str
) -> None:
    panels.title(figure, row, col, letter, text)
    rows = rows.filter(pl.col("statistic") == statistic)
    disagrees = {"nothing": "φ agrees with occlusion nowhere"} if rows["missing"].eq(DISAGREES).any() else {}
    panels.groups(figure, row, col, rows, "group", LABELS, unit, **disagrees)
    _zero(figure, row, col)


def _along(
    figure: go.Figure, row: int, col: int, letter: str, text: str, rows: pl.DataFrame, statistic: str, unit: str
) -> None:
    panels.title(figure, row, col, letter, text)
    whole, among = pl.col("module").is_null() | (pl.col("module") == "all"), rows["method"].to_list()
    rows = rows.filter(whole & (pl.col("statistic") == statistic))
    start = rows.filter(pl.col("method") == BASE)["value"].drop_nulls()
    at = start[0] if len(start) else None
    panels.curves(figure, row, col, rows.filter(pl.col("method") != BASE), unit, at, among=among)


def _zero(figure: go.Figure, row: int, col: int) -> None:
    figure.add_hline(y=0, line={"color": "#bbbbbb", "width": 1}, layer="below", row=row, col=col)
