"""Figure of the analysis `merge_path`: accuracy and KL of the models between two runs."""

from collections.abc import Sequence
from itertools import product

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels

# Colours of no method.
WAYS = {"linear": ("#222222", "straight line"), "slerp": ("#B2182B", "along the arc (slerp)")}
STATISTICS = {
    "accuracy": ("accuracy", "accuracy"),
    "accuracy_off_line": ("Accuracy off the line, paired", "accuracy − line"),
    "kl_forward": ("Forward KL(π<sub>0</sub>‖π)", "nat / response"),
}
MOST = 4  # pairs that are drawn
ROOM = 0.07  # of the way, for all that stands at one point: seeds, and both ways
NOTE = (
    "Each point is a model whose weights lie between two runs of one seed, both merged into the base: t = 0 and 1 are "
    "the runs.<br>Decision and KL(π<sub>0</sub>‖π) on the base’s own responses to in-domain val memes, mean over "
    "prompts; bars: 95 % cluster bootstrap over prompts (equal captions are one cluster).<br>"
    "Grey, dashed: the straight line between the two ends of a seed. An accuracy below it is a barrier between the two "
    "runs: the middle panels show the paired difference."
)


def figure_merge_path(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `merge_path`; `notes` on the study close its caption."""
    pairs = frame.select("method", "versus").unique(maintain_order=True).rows()
    pairs = sorted(pairs, key=lambda pair: [figures.ordered(frame["method"].to_list()).index(pair[0]), pair[1]])[:MOST]
    palette = figures.colours(_both(frame)["method"].to_list())
    room = {"vertical_spacing": 0.32 / len(pairs), "horizontal_spacing": 0.085}
    figure = make_subplots(rows=len(pairs), cols=len(STATISTICS), **room)
    for place, ((row, (first, second)), (col, statistic)) in enumerate(
        product(enumerate(pairs, 1), enumerate(STATISTICS, 1))
    ):
        own = frame.filter(pl.col("method") == first, pl.col("versus") == second, pl.col("statistic") == statistic)
        title, unit = STATISTICS[statistic]
        names = f"{_short(first)} → {_short(second)}: " if statistic == "accuracy" else ""
        panels.title(figure, row, col, "abcdefghijkl"[place], names + title)
        _panel(figure, row, col, own, unit, palette)
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


def _panel(figure: go.Figure, row: int, col: int, rows: pl.DataFrame, unit: str, palette: dict[str, str]) -> None:
    first, second = rows.select("method", "versus").row(0)
    seeds = sorted(rows["seed"].unique())
    for place, seed in enumerate(seeds):
        run = rows.filter(pl.col("seed") == seed).sort("t")
        _reference(figure, row, col, run)
        for side, way in enumerate(WAYS):
            inside = run.filter(pl.col("way") == way, pl.col("t") > 0, pl.col("t") < 1)
            shift = ROOM * ((2 * place + side + 0.5) / (2 * len(seeds)) - 0.5)
            _points(figure, row, col, inside, WAYS[way][0], place, shift)
        for t, method in ((0.0, first), (1.0, second)):
            end, shift = run.filter(way="linear", t=t), ROOM * ((place + 0.5) / len(seeds) - 0.5)
            _points(figure, row, col, end, palette[method], place, shift, 9)
    ticks = {"tickvals": [0, 0.25, 0.5, 0.75, 1], "ticktext": ["0", "¼", "½", "¾", "1"]}
    names = [f'<span style="color:{palette[method]}"><b>{_short(method)}</b></span>' for method in (first, second)]
    ends = f"t (0: {names[0]}, 1: {names[1]})"
    figure.update_xaxes(**ticks, range=[-0.06, 1.08], title_text=ends, showgrid=False, row=row, col=col)
    figure.update_yaxes(title_text=unit, row=row, col=col)


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
