"""The house style: one colour a method, one dash and marker a seed, base grey, intervals always drawn.

Colours are Okabe & Ito's (2008), told apart with any colour vision. Equal tables give equal bytes: ids are fixed.
"""

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go
import plotly.io as pio
import polars as pl

BASE_COLOUR = "#6b6b6b"
COLOURS = {"base": BASE_COLOUR, "sft": "#0072B2", "dpo": "#D55E00", "grpo": "#009E73"}
FURTHER = ("#CC79A7", "#E69F00", "#56B4E9", "#8C510A", "#5E3C99", "#4D4D4D", "#B2ABD2")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
MARKERS = ("circle", "diamond-open", "square", "triangle-up-open", "x")
FONT = "Helvetica, Arial, Liberation Sans, sans-serif"
NAMES = {"sft": "SFT", "dpo": "DPO", "grpo": "GRPO", "base": "base", "em": "EM"}

_axis = {
    "showline": True, "linecolor": "#333333", "linewidth": 1, "ticks": "outside", "tickcolor": "#333333", "ticklen": 4,
    "gridcolor": "#ececec", "zeroline": False, "title": {"standoff": 8, "font": {"size": 13}}, "automargin": True,
}  # fmt: skip
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 12, "color": "#222222"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": _axis,
        "yaxis": _axis,
        "title": {"x": 0.01, "xanchor": "left", "font": {"size": 16}},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "yanchor": "top", "traceorder": "normal"},
        "margin": {"l": 60, "r": 30, "t": 90, "b": 110},
        "hoverlabel": {"font": {"family": FONT}},
    }
)


def colours(methods: Sequence[str]) -> dict[str, str]:
    """Colour of each method: fixed for the known ones, in alphabetical order from the rest of the palette else."""
    unknown = sorted(set(methods) - set(COLOURS))
    return COLOURS | {name: FURTHER[i % len(FURTHER)] for i, name in enumerate(unknown)}


def ordered(methods: Sequence[str]) -> list[str]:
    """Methods in the order every figure shows them: base, the known ones, then alphabetical."""
    known = list(COLOURS)
    return sorted(set(methods), key=lambda name: (known.index(name) if name in known else len(known), name))


def name(method: str) -> str:
    """How a method is written in a figure."""
    return NAMES.get(method, method)


def place(dataset: str, split: str, datasets: Sequence[str] = ()) -> str:
    """How a dataset and split are written; the dataset is left out where there is only one."""
    return split if len(set(datasets)) == 1 else f"{dataset}<br>{split}"


def faded(colour: str, opacity: float) -> str:
    """`colour` (#rrggbb) as rgba with `opacity`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def seeds_of(frame: pl.DataFrame) -> list[int]:
    """The seeds in `frame`, sorted."""
    return sorted(frame["seed"].drop_nulls().unique().to_list())


def hover(frame: pl.DataFrame) -> list[str]:
    """Hover text of each row: what, value with interval, n."""
    return [_hover(row) for row in frame.fill_null(float("nan")).to_dicts()]


def _hover(row: dict) -> str:
    seed = "" if row["method"] == "base" else f", seed {row['seed']:.0f}"
    return (
        f"{name(row['method'])}{seed}, {row['dataset']} {row['split']}<br>fraction {row['fraction']:g} of training"
        f"<br>{row['statistic']} {row['value']:.4g} [{row['ci_low']:.4g}, {row['ci_high']:.4g}] {row['unit']}"
        f"<br>n = {row['n']} prompts"
    )


def draw_curve(
    figure: go.Figure, frame: pl.DataFrame, row: int, col: int, colour: str, seed_index: int, start: float | None = None
) -> None:
    """One run along training with its interval as a band; `start` is the value at fraction 0 where the rows lack it."""
    frame = frame.drop_nulls("value").sort("fraction")
    x, y = frame["fraction"].to_list(), frame["value"].to_list()
    low, high = frame["ci_low"].to_list(), frame["ci_high"].to_list()
    text = hover(frame)
    if start is not None and (not x or x[0] > 0):
        x, y, low, high, text = [0, *x], [start, *y], [start, *low], [start, *high], ["start: the base model", *text]
    band = {
        "x": x + x[::-1],
        "y": high + low[::-1],
        "fill": "toself",
        "fillcolor": faded(colour, 0.13),
        "line_width": 0,
    }
    figure.add_scatter(**band, hoverinfo="skip", showlegend=False, mode="lines", row=row, col=col)
    style = {"line": {"color": colour, "width": 2, "dash": DASHES[seed_index % len(DASHES)]}}
    marker = {"symbol": MARKERS[seed_index % len(MARKERS)], "size": 7, "color": colour}
    points = {"x": x, "y": y, "mode": "lines+markers", "marker": marker, "hovertext": text, "hoverinfo": "text"}
    figure.add_scatter(**points, **style, showlegend=False, row=row, col=col)


def draw_points(
    figure: go.Figure, frame: pl.DataFrame, x: Sequence[float], row: int, col: int, colour: str, seed_index: int | None
) -> None:
    """Points with interval bars at positions `x`; `seed_index` None draws the base's marker."""
    symbol = "line-ew-open" if seed_index is None else MARKERS[seed_index % len(MARKERS)]
    bars = {
        "type": "data", "symmetric": False, "thickness": 1.5, "width": 0, "color": colour,
        "array": (frame["ci_high"] - frame["value"]).to_list(),
        "arrayminus": (frame["value"] - frame["ci_low"]).to_list(),
    }  # fmt: skip
    marker = {"symbol": symbol, "size": 8, "color": colour, "line": {"width": 2, "color": colour}}
    points = {"x": list(x), "y": frame["value"].to_list(), "mode": "markers", "marker": marker, "error_y": bars}
    figure.add_scatter(**points, hovertext=hover(frame), hoverinfo="text", showlegend=False, row=row, col=col)


def add_key(figure: go.Figure, methods: Sequence[str], seeds: Sequence[int], base: bool = True) -> None:
    """The legend: a line a method in its colour, then a grey line a seed in its dash and marker."""
    palette = colours(methods)
    for method in ordered([*methods, "base"] if base else methods):
        line = {"color": palette[method], "width": 3}
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=name(method), legendgroup="method")
    for i, seed in enumerate(seeds):
        line = {"color": "#888888", "width": 2, "dash": DASHES[i % len(DASHES)]}
        marker = {"symbol": MARKERS[i % len(MARKERS)], "size": 7, "color": "#888888"}
        figure.add_scatter(x=[None], y=[None], mode="lines+markers", line=line, marker=marker, name=f"seed {seed}")


def label_ends(figure: go.Figure, ends: dict[str, float | None], row: int, col: int) -> None:
    """The methods' names beside the ends of their curves, at the values `ends`, moved apart where they would meet."""
    palette = colours(list(ends))
    known = sorted((value, method) for method, value in ends.items() if value is not None)
    values = [value for value, _ in known]
    panel = [point for trace in figure.select_traces(row=row, col=col) for point in (trace.y or ())]
    gap = 0.07 * (max(panel, default=0) - min(panel, default=0))
    for i in range(1, len(values)):
        values[i] = max(values[i], values[i - 1] + gap)
    for value, (_, method) in zip(values, known, strict=True):
        figure.add_annotation(
            x=1.03, y=value, text=f"<b>{name(method)}</b>", font={"color": palette[method], "size": 12},
            xanchor="left", showarrow=False, row=row, col=col,
        )  # fmt: skip


def left_titles(figure: go.Figure) -> None:
    """Panel titles flush with the left end of their panels."""
    domains = [axis.domain for axis in figure.select_xaxes()]
    for title in figure.layout.annotations[: len(domains)]:
        left, right = next(d for d in domains if abs(sum(d) / 2 - title.x) < 1e-6)
        title.update(font={"size": 14}, xanchor="left", x=title.x - (right - left) / 2)


def finish(figure: go.Figure, title: str, note: str, width: int, height: int) -> go.Figure:
    """Template, size, title and the note below: what intervals and references are."""
    below = 92 + 18 * (note.count("<br>") + 1)
    heading = {"text": title, "yref": "container", "y": 0.97}
    figure.update_layout(template=TEMPLATE, title=heading, width=width, height=height, margin_b=below)
    figure.update_layout(legend={"yref": "container", "y": (below - 46) / height})
    figure.add_annotation(
        text=note, xref="paper", yref="paper", x=0, y=0, yshift=-92, xanchor="left",
        yanchor="top", align="left", showarrow=False, font={"size": 11, "color": "#555555"},
    )  # fmt: skip
    return figure


def save(figure: go.Figure, path: Path, identity: str) -> None:
    """Write `figure` in the format of `path`'s suffix: html needs no network; pdf, svg and png need Chromium."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".html":
        figure.write_html(partial, include_plotlyjs=True, div_id=identity, config={"displaylogo": False})
    else:
        pio.write_image(figure, partial, scale=2 if path.suffix == ".png" else 1)
    partial.replace(path)
