"""Figure of the analysis `parity`: the losses of one method by two backends, and how far apart they are."""

from collections.abc import Sequence
from itertools import product
from math import isclose, log

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels

NOTE = (
    "Same data, order, seed, start and arguments. Left: the training loss that each backend logged, TRL’s as a broad "
    "pale line, LLaMA-Factory’s as a narrow one,<br>seeds by dashes; grey: ln 2, where DPO’s loss starts. Right: "
    "absolute difference of what both logged at a step, log scale; equal numbers stand on the<br>lower edge; grey: how "
    "finely float32 tells numbers near 1 apart (2<sup>−23</sup>)."
)
# What is shown of the differences: name and colour.
SHOWN = {
    "loss": ("loss", "#333333"),
    "grad_norm": ("gradient norm", "#8C510A"),
    "rewards/margins": ("reward margin", "#5E3C99"),
}
RESOLUTION, BOTTOM = 2.0**-23, 1e-9
GREY = {"color": figures.COLOURS["base"], "width": 1.5}


def figure_parity(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `parity`; `notes` on the study close its caption."""
    apart = frame.filter(pl.col("statistic") == "difference")
    losses = frame.filter((pl.col("statistic") == "logged") & (pl.col("metric") == "loss"))
    pairs = apart.select("versus", "method").unique().sort("method", descending=True).rows()
    figure = make_subplots(rows=len(pairs), cols=2, vertical_spacing=0.26 / len(pairs), horizontal_spacing=0.1)
    for row, (first, second) in enumerate(pairs, start=1):
        _losses(figure, row, losses, first, second)
        _differences(figure, row, apart.filter((pl.col("versus") == first) & (pl.col("method") == second)))
    return figures.finish(figure, frame, "The same training by two backends", NOTE, len(pairs), notes, reference=())


def _losses(figure: go.Figure, row: int, losses: pl.DataFrame, first: str, second: str) -> None:
    letter = chr(ord("a") + 2 * (row - 1))
    panels.title(figure, row, 1, letter, f"Loss of {figures.name(first)} and {figures.name(second)}")
    palette = figures.colours(losses["method"].to_list())
    found = figures.runs(losses.filter(pl.col("method").is_in([first, second])))
    for method, width, opacity in ((first, 7, 0.35), (second, 1.6, 1.0)):
        for seed, place in [(seed, place) for name, seed, place in found if name == method]:
            run = losses.filter((pl.col("method") == method) & (pl.col("seed") == seed)).sort("step")
            dash = figures.DASHES[place % len(figures.DASHES)]
            line = {"color": figures.faded(palette[method], opacity), "width": width, "dash": dash}
            _draw(figure, row, 1, run, run["value"], mode="lines", line=line)
    start = losses.filter((pl.col("method") == first) & (pl.col("step") == 1))["value"].to_list()
    if start and all(isclose(value, log(2), abs_tol=1e-3) for value in start):
        figure.add_hline(y=log(2), line=GREY, layer="below", row=row, col=1)
    figure.update_yaxes(title_text="loss", row=row, col=1)


def _differences(figure: go.Figure, row: int, apart: pl.DataFrame) -> None:
    shown = [metric for metric in SHOWN if metric in apart["metric"]]
    key = [f'<span style="color:{colour}"><b>{name}</b></span>' for name, colour in map(SHOWN.get, shown)]
    panels.title(figure, row, 2, chr(ord("b") + 2 * (row - 1)), f"Differences of {', '.join(key)}")
    for metric, (_, seed, place) in product(shown, figures.runs(apart)):
        rows = apart.filter((pl.col("metric") == metric) & (pl.col("seed") == seed)).sort("step")
        symbol, colour = figures.MARKERS[place % len(figures.MARKERS)], SHOWN[metric][1]
        marker = {"symbol": symbol, "size": 6.5, "color": colour, "line": {"width": 1.5, "color": colour}}
        _draw(figure, row, 2, rows, rows["value"].abs().clip(BOTTOM), mode="markers", marker=marker, cliponaxis=False)
    figure.add_hline(y=RESOLUTION, line=GREY, layer="below", row=row, col=2)
    top = max(apart["value"].abs().max(), 100 * RESOLUTION)
    figure.update_yaxes(title_text="absolute difference", type="log", dtick=1, row=row, col=2)
    figure.update_yaxes(range=[-9, 0.3 + pl.Series([top]).log10()[0]], row=row, col=2)


def _draw(figure: go.Figure, row: int, col: int, rows: pl.DataFrame, y: pl.Series, **style: object) -> None:
    kept = rows.select("method", "seed", "metric", "step", "value").rows()
    text = [
        f"{figures.name(name)}, seed {seed}<br>{metric} at step {at}: {x:.7g}" for name, seed, metric, at, x in kept
    ]
    given = {"hovertext": text, "hoverinfo": "text", "showlegend": False, **panels.whose(rows), **style}
    figure.add_scatter(x=rows["step"], y=y, **given, row=row, col=col)
    whole = 1 if rows["step"].max() < 8 else None  # few steps would have ticks at halves
    figure.update_xaxes(title_text="optimiser step", dtick=whole, row=row, col=col)
