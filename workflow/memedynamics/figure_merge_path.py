"""Figure of the analysis `merge_path`: accuracy and KL of the models between two runs."""

from collections.abc import Sequence
from itertools import product

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels

WAYS = {"linear": ("#222222", "straight line"), "slerp": ("#E69F00", "along the arc (slerp)")}
STATISTICS = {"accuracy": ("accuracy of the decision", "accuracy"), "kl_forward": ("forward KL", "nat / response")}
MOST = 4  # pairs that are drawn
SHIFT = 0.012  # of the way: seeds and ways stand beside each other
NOTE = (
    "Each point is a model whose weights lie between two runs of one seed, both merged into the base: t = 0 and 1 are "
    "the runs.<br>Decision and KL(π<sub>0</sub>‖π) on the base’s own responses to in-domain val memes, mean over "
    "prompts; bars: 95 % cluster bootstrap over prompts (equal captions are one cluster).<br>"
    "Grey, dashed: the straight line between the two ends. An accuracy below it is a barrier between the runs, above "
    "it the merge has more than its parts."
)


def figure_merge_path(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `merge_path`; `notes` on the study close its caption."""
    pairs = frame.select("method", "versus").unique(maintain_order=True).rows()
    pairs = sorted(pairs, key=lambda pair: [figures.ordered(frame["method"].to_list()).index(pair[0]), pair[1]])[:MOST]
    room = {"vertical_spacing": 0.24 / len(pairs), "horizontal_spacing": 0.09}
    figure = make_subplots(rows=len(pairs), cols=2, **room)
    for place, ((row, (first, second)), (col, statistic)) in enumerate(
        product(enumerate(pairs, 1), enumerate(STATISTICS, 1))
    ):
        own = frame.filter(pl.col("method") == first, pl.col("versus") == second, pl.col("statistic") == statistic)
        title, unit = STATISTICS[statistic]
        names = f"{_short(first)} → {_short(second)}"
        panels.title(figure, row, col, "abcdefgh"[place], f"{names}: {title}")
        _panel(figure, row, col, own, unit)
    return figures.finish(figure, _both(frame), "Between two runs: accuracy and KL along the merge path", _note(frame),
                          len(pairs), notes)  # fmt: skip


def _short(method: str) -> str:
    name = figures.name(method)
    return name if len(name) <= panels.LONGEST else f"{name[: panels.LONGEST - 1]}…"


def _both(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of both runs of every pair, for the key of methods and seeds."""
    return pl.concat([frame, frame.with_columns(method=pl.col("versus"), step=pl.lit(0, pl.Int64))])


def _note(frame: pl.DataFrame) -> str:
    key = ", ".join(f'<span style="color:{colour}"><b>{name}</b></span>' for colour, name in WAYS.values())
    pairs = frame.select("method", "versus").n_unique()
    left = f"<br>The first {MOST} of {pairs} pairs; the table holds all." if pairs > MOST else ""
    return f"{NOTE}<br>Between the ends: {key}.{left}"


def _panel(figure: go.Figure, row: int, col: int, rows: pl.DataFrame, unit: str) -> None:
    first, second = rows.select("method", "versus").row(0)
    for place, seed in enumerate(sorted(rows["seed"].unique())):
        run = rows.filter(pl.col("seed") == seed).sort("t")
        _reference(figure, row, col, run)
        for side, way in enumerate(WAYS):
            inside = run.filter(pl.col("way") == way, pl.col("t") > 0, pl.col("t") < 1)
            _points(figure, row, col, inside, WAYS[way][0], place, SHIFT * (2 * side - 1 + place))
        ends = run.filter(pl.col("way") == "linear")
        palette = figures.colours([first, second])
        _points(figure, row, col, ends.filter(t=0.0), palette[first], place, SHIFT * place, 9)
        _points(figure, row, col, ends.filter(t=1.0), palette[second], place, SHIFT * place, 9)
    ticks = {"tickvals": [0, 0.25, 0.5, 0.75, 1], "ticktext": [_end(first), "¼", "½", "¾", _end(second)]}
    figure.update_xaxes(**ticks, range=[-0.09, 1.09], title_text="t", showgrid=False, row=row, col=col)
    figure.update_yaxes(title_text=unit, row=row, col=col)


def _end(method: str) -> str:
    return f'<span style="color:{figures.colours([method])[method]}"><b>{_short(method)}</b></span>'


def _reference(figure: go.Figure, row: int, col: int, run: pl.DataFrame) -> None:
    ends = run.filter(pl.col("way") == "linear", pl.col("t").is_in([0.0, 1.0]))
    line = {"color": "#9a9a9a", "width": 1.2, "dash": "dash"}
    figure.add_scatter(x=ends["t"].to_list(), y=ends["value"].to_list(), mode="lines", line=line, hoverinfo="skip",
                       showlegend=False, row=row, col=col)  # fmt: skip


def _points(
    figure: go.Figure, row: int, col: int, rows: pl.DataFrame, colour: str, place: int, shift: float, size: float = 5.5
) -> None:
    value, low, high = (rows[name].to_list() for name in ("value", "ci_low", "ci_high"))
    bars = {
        "type": "data", "symmetric": False, "thickness": 1.2, "width": 0, "color": figures.faded(colour, 0.5),
        "array": [b - a for a, b in zip(value, high, strict=True)],
        "arrayminus": [a - b for a, b in zip(value, low, strict=True)],
    }  # fmt: skip
    marker = {"symbol": figures.MARKERS[place % len(figures.MARKERS)], "size": size, "color": colour}
    marker["line"] = {"width": 1.4, "color": colour}
    figure.add_scatter(
        x=[t + shift for t in rows["t"]], y=value, mode="markers", marker=marker, error_y=bars, showlegend=False,
        hovertext=panels.hover(rows), hoverinfo="text", cliponaxis=False, row=row, col=col,
    )  # fmt: skip
