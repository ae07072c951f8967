"""Figure of the analysis `accuracy`: where each method ends, and how it gets there."""

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures
from memedynamics.gather import BASE

NOTE = (
    "Bars and bands: 95 % cluster bootstrap over prompts (memes with equal captions are one cluster), paired across "
    "methods. Invalid answers count as wrong.<br>c: policy minus base on the same prompts. e: decision "
    "P(Yes) ≥ ½ after the base’s rationales, which every policy reads on train and val alike; above 0 is overfitting."
)


def figure_accuracy(frame: pl.DataFrame) -> go.Figure:
    """Accuracy and AUROC at the end by dataset and split; change, format and train-val gap along training on val."""
    titles = [
        "<b>a</b>  Accuracy at the end of training",
        "<b>b</b>  AUROC at the end of training",
        "<b>c</b>  Accuracy gained on val",
        "<b>d</b>  Responses in format, val",
        "<b>e</b>  Train − val gap of the decision",
    ]
    figure = make_subplots(
        rows=2, cols=6, specs=[[{"colspan": 3}, None, None] * 2, [{"colspan": 2}, None] * 3],
        subplot_titles=titles, vertical_spacing=0.2, horizontal_spacing=0.09,
    )  # fmt: skip
    _final(figure, frame, "accuracy", 1, "accuracy (%)")
    _final(figure, frame, "auroc", 4, "AUROC (%)")
    val = frame.filter(pl.col("split") == "val")
    _along(figure, val.filter(pl.col("versus") == BASE), "accuracy_difference", 1, "change from base (points)", 0.0)
    _along(figure, val, "format_share", 3, "well-formed (%)", None)
    _along(figure, frame, "probe_accuracy_gap", 5, "train − val (points)", None)
    figures.add_key(figure, _methods(frame), figures.seeds_of(frame))
    figures.left_titles(figure)
    return figures.finish(figure, "What each method did to accuracy", NOTE, 1120, 800)


def _methods(frame: pl.DataFrame) -> list[str]:
    return [method for method in figures.ordered(frame["method"].to_list()) if method != BASE]


def _percent(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("value", "ci_low", "ci_high") * 100, unit=pl.lit("%"))


def _final(figure: go.Figure, frame: pl.DataFrame, statistic: str, col: int, unit: str) -> None:
    """Groups along x: dataset and split; within a group the base as a line with its interval, then every run."""
    here = _percent(frame.filter((pl.col("statistic") == statistic) & pl.col("versus").is_null()))
    last = here.filter((pl.col("method") != BASE) & (pl.col("fraction") == pl.col("fraction").max()))
    places = last.select("dataset", "split").unique().sort("dataset", pl.col("split") != "val", "split").rows()
    palette, seeds, methods = figures.colours(here["method"].to_list()), figures.seeds_of(here), _methods(here)
    step = 0.7 / max(1, len(methods) * len(seeds) - 1)
    for at, (dataset, split) in enumerate(places):
        group = (pl.col("dataset") == dataset) & (pl.col("split") == split)
        _reference(figure, here.filter(group & (pl.col("method") == BASE)), at, col)
        for i, (method, seed) in enumerate((m, s) for m in methods for s in seeds):
            row = last.filter(group & (pl.col("method") == method) & (pl.col("seed") == seed))
            figures.draw_points(
                figure, row, [at - 0.35 + i * step] * len(row), 1, col, palette[method], seeds.index(seed)
            )
    labels = [figures.place(dataset, split) for dataset, split in places]
    figure.update_xaxes(tickvals=list(range(len(places))), ticktext=labels, showgrid=False, row=1, col=col)
    figure.update_yaxes(title_text=unit, row=1, col=col)


def _reference(figure: go.Figure, base: pl.DataFrame, at: int, col: int) -> None:
    if base.is_empty():
        return
    low, value, high = base.select("ci_low", "value", "ci_high").row(0)
    x, colour = [at - 0.44, at + 0.44], figures.BASE_COLOUR
    band = {"x": x + x[::-1], "y": [low, low, high, high], "fill": "toself", "fillcolor": figures.faded(colour, 0.15)}
    figure.add_scatter(**band, mode="lines", line_width=0, hoverinfo="skip", showlegend=False, row=1, col=col)
    line = {"mode": "lines", "line": {"color": colour, "width": 2}, "hovertext": figures.hover(base) * 2}
    figure.add_scatter(x=x, y=[value] * 2, **line, hoverinfo="text", showlegend=False, row=1, col=col)


def _along(figure: go.Figure, frame: pl.DataFrame, statistic: str, col: int, unit: str, zero: float | None) -> None:
    """A statistic against the fraction of training; curves start at the base's value, drawn as a grey line."""
    here = _percent(frame.filter(pl.col("statistic") == statistic))
    base = here.filter(pl.col("method") == BASE)["value"].to_list()
    start = zero if zero is not None else next(iter(base), None)
    palette, seeds = figures.colours(here["method"].to_list()), figures.seeds_of(here)
    ends = {}
    for method in _methods(here):
        for i, seed in enumerate(seeds):
            run = here.filter((pl.col("method") == method) & (pl.col("seed") == seed))
            figures.draw_curve(figure, run, 2, col, palette[method], i, start)
        last = here.filter((pl.col("method") == method) & (pl.col("fraction") == here["fraction"].max()))
        ends[method] = last["value"].mean()
    figures.label_ends(figure, ends, 2, col)
    if start is not None:
        figure.add_hline(y=start, line={"color": figures.BASE_COLOUR, "width": 1.5}, layer="below", row=2, col=col)
    figure.update_xaxes(title_text="fraction of training", range=[-0.03, 1.22], tickvals=[0, 0.5, 1], row=2, col=col)
    figure.update_yaxes(title_text=unit, row=2, col=col)
