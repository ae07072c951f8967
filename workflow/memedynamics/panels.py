"""The two kinds of panel: curves along training, and runs side by side in groups. Intervals are always drawn.

Both take rows of one statistic of an analysis (method, seed, fraction, value, ci_low, ci_high, n, unit, …).
"""

import math
from collections.abc import Collection, Sequence

import plotly.graph_objects as go
import polars as pl

from memedynamics import figures
from memedynamics.gather import BASE

SPREAD = 0.62  # share of the room between two ticks that the runs at one tick take up
LABEL_ROOM = 0.075  # least distance between two labels, share of a panel's height
LETTER = 0.026  # width of a label's letter, share of a panel's width
LONGEST, UPRIGHT = 14, 8  # letters of a label, and of one that stands upright below a panel; longer names are cut
NOTHING = "no run has a value"
BESIDE = 4  # methods whose names have room beside each other below a narrow panel


def title(figure: go.Figure, row: int, col: int, letter: str, text: str) -> None:
    """`letter` and `text` above the upper left corner of a panel."""
    figure.add_annotation(
        text=f"<b>{letter}</b>&nbsp; {text}", xref="x domain", yref="y domain", x=0, y=1, yshift=8, xshift=-4,
        xanchor="left", yanchor="bottom", showarrow=False, font={"size": 13}, name=figures.PANEL_TITLE, row=row,
        col=col,
    )  # fmt: skip


def hover(rows: pl.DataFrame) -> list[str]:
    """Hover text of each row: whose, where, value with interval, n."""
    return [_hover(row) for row in rows.fill_null(float("nan")).to_dicts()]


def _hover(row: dict) -> str:
    seed = "" if row["method"] == BASE else f", seed {row['seed']:.0f}"
    return (
        f"{figures.name(row['method'])}{seed}, {row['dataset']} {row['split']}<br>{row['fraction']:g} of training"
        f"<br>{row['statistic']} {row['value']:.4g} [{row['ci_low']:.4g}, {row['ci_high']:.4g}] {row['unit']}"
        f"<br>n = {row['n']:.0f} prompts"
    )


def curves(
    figure: go.Figure, row: int, col: int, rows: pl.DataFrame, unit: str, start: float | None,
    elsewhere: Collection[tuple[str, int]] = (), among: Sequence[str] = (),
) -> None:  # fmt: skip
    """Every run against the fraction of training, milestones evenly spaced, from `start`, the base's value, at 0.

    Runs that have a row at fraction 0 do not begin at the base, and so at that row; those `elsewhere` (method, seed)
    do not either, and begin at their first row. `among`: the figure's methods, where `rows` hold only some, for their
    colours. The runs of a milestone stand side by side; a method's name stands at its end.
    """
    palette, rows, ends = figures.colours([*among, *rows["method"]]), rows.drop_nulls("value"), {}
    ticks = sorted({0.0, *rows["fraction"]})
    found = figures.runs(rows)
    edge = len(ticks) - 1 + SPREAD / 2
    if start is not None:
        line = {"line": {"color": figures.COLOURS[BASE], "width": 1.5}, "mode": "lines", "hoverinfo": "skip"}
        figure.add_scatter(x=[-0.35, edge], y=[start] * 2, **line, showlegend=False, row=row, col=col)
    for (method, seed, place), shift in zip(found, _shifts(len(found)), strict=True):
        run = rows.filter((pl.col("method") == method) & (pl.col("seed") == seed)).sort("fraction")
        x = [ticks.index(fraction) + shift for fraction in run["fraction"]]
        own = run["fraction"][0] == 0 or (method, seed) in elsewhere
        where = {"joined": own or start is not None, "joined_from": None if own else start}
        _points(figure, row, col, run, x, palette[method], place, **where)
        ends.setdefault(method, []).append(run["value"][-1])
    _end_labels(figure, row, col, ends, palette, edge, _limits(figure, row, col, rows, start))
    named = 0.05 + LETTER * max((len(_short(method)) for method in ends), default=0)
    axis = {"tickvals": list(range(len(ticks))), "ticktext": [_fraction(tick) for tick in ticks]}
    axis["range"] = [-0.35, edge + (edge + 0.35) * named / (1 - named)]
    figure.update_xaxes(**axis, title_text="fraction of training", showgrid=False, row=row, col=col)
    figure.update_yaxes(title_text=unit, row=row, col=col)


def _fraction(value: float) -> str:
    return f"1/{1 / value:g}" if 0 < value < 1 and (1 / value).is_integer() else f"{value:g}"


def _short(method: str, longest: int = LONGEST) -> str:
    name = figures.name(method)
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def groups(
    figure: go.Figure,
    row: int,
    col: int,
    rows: pl.DataFrame,
    by: str,
    labels: Sequence[tuple[str, str]],
    unit: str,
    among: Sequence[str] = (),
    nothing: str = NOTHING,
) -> None:
    """Every run in each group of `labels` (value of column `by`, text); the base's rows as a line with its interval.

    Groups without rows are left out. `among`: the figure's methods, where `rows` hold only some, for their colours.
    `nothing`: what stands in a panel without a value.
    """
    palette, rows = figures.colours([*among, *rows["method"]]), rows.drop_nulls("value")
    labels = [(value, text) for value, text in labels if value in rows[by].to_list()]
    found = figures.runs(rows)
    for at, (value, _) in enumerate(labels):
        here = rows.filter(pl.col(by) == value)
        reference(figure, row, col, here.filter(pl.col("method") == BASE), at)
        for (method, seed, place), shift in zip(found, _shifts(len(found)), strict=True):
            run = here.filter((pl.col("method") == method) & (pl.col("seed") == seed))
            _points(figure, row, col, run, [at + shift] * len(run), palette[method], place)
    if not labels:
        _nothing(figure, row, col, nothing)
    ticks = {"tickvals": list(range(len(labels))), "ticktext": [text for _, text in labels]}
    figure.update_xaxes(**ticks, range=[-0.5, max(len(labels), 1) - 0.5], showgrid=False, row=row, col=col)
    figure.update_yaxes(title_text=unit, row=row, col=col)


def by_method(figure: go.Figure, row: int, col: int, rows: pl.DataFrame, unit: str) -> None:
    """Every run above its method's name, seeds side by side; methods without a value keep their place."""
    found, palette = figures.runs(rows), figures.colours(rows["method"].to_list())
    methods = list(dict.fromkeys(method for method, _, _ in found))
    for at, method in enumerate(methods):
        own = [run for run in found if run[0] == method]
        for (_, seed, place), shift in zip(own, _shifts(len(own)), strict=True):
            run = rows.filter((pl.col("method") == method) & (pl.col("seed") == seed)).drop_nulls("value")
            _points(figure, row, col, run, [at + shift] * len(run), palette[method], place)
    if rows["value"].count() == 0:
        _nothing(figure, row, col, NOTHING)
    longest = LONGEST if len(methods) <= BESIDE else UPRIGHT
    names = [f'<span style="color:{palette[method]}"><b>{_short(method, longest)}</b></span>' for method in methods]
    ticks = {"tickvals": list(range(len(methods))), "ticktext": names, "range": [-0.6, len(methods) - 0.4]}
    figure.update_xaxes(**ticks, showgrid=False, row=row, col=col)
    figure.update_yaxes(title_text=unit, row=row, col=col)


def _nothing(figure: go.Figure, row: int, col: int, text: str) -> None:
    # Without a trace there would be no panel, and its title would stand in another one.
    figure.add_scatter(x=[None], y=[None], showlegend=False, hoverinfo="skip", row=row, col=col)
    figure.add_annotation(
        text=text, xref="x domain", yref="y domain", x=0.5, y=0.6, showarrow=False,
        font={"color": figures.COLOURS[BASE]}, row=row, col=col,
    )  # fmt: skip


def reference(figure: go.Figure, row: int, col: int, base: pl.DataFrame, at: int) -> None:
    """The base's value in group `at` as a grey line over its interval; nothing where there are no rows."""
    for low, value, high in base.select("ci_low", "value", "ci_high").rows():
        x, colour, common = [at - 0.42, at + 0.42], figures.COLOURS[BASE], {"mode": "lines", "showlegend": False}
        band = {"x": x + x[::-1], "y": [low, low, high, high], "fillcolor": figures.faded(colour, 0.15)}
        figure.add_scatter(**band, **common, fill="toself", line_width=0, hoverinfo="skip", row=row, col=col)
        line = {"line": {"color": colour, "width": 2}, "hovertext": hover(base) * 2, "hoverinfo": "text"}
        figure.add_scatter(x=x, y=[value] * 2, **line, **common, row=row, col=col)


def _shifts(count: int) -> list[float]:
    return [SPREAD * ((i + 0.5) / count - 0.5) for i in range(count)]


def _points(
    figure: go.Figure, row: int, col: int, run: pl.DataFrame, x: list[float], colour: str, place: int,
    joined: bool = False, joined_from: float | None = None,
) -> None:  # fmt: skip
    y, low, high = (run[name].to_list() for name in ("value", "ci_low", "ci_high"))
    text, told = hover(run), whose(run)
    if joined_from is not None:
        x, y, low, high = [0, *x], [joined_from, *y], [joined_from, *low], [joined_from, *high]
        text, told["customdata"] = ["start: the base model", *text], [(None, None, 0.0), *told["customdata"]]
    bars = {
        "type": "data", "symmetric": False, "thickness": 1.3, "width": 0, "color": figures.faded(colour, 0.75),
        "array": [_gap(b, a) for a, b in zip(y, high, strict=True)],
        "arrayminus": [_gap(a, b) for a, b in zip(y, low, strict=True)],
    }  # fmt: skip
    symbol, dash = figures.MARKERS[place % len(figures.MARKERS)], figures.DASHES[place % len(figures.DASHES)]
    marker = {"symbol": symbol, "size": 6.5, "color": colour, "line": {"width": 1.5, "color": colour}}
    line = {"color": colour, "width": 1.5, "dash": dash}
    mode = "lines+markers" if joined else "markers"
    style = {"mode": mode, "marker": marker, "line": line, "error_y": bars, "showlegend": False, "cliponaxis": False}
    figure.add_scatter(x=x, y=y, **style, **told, hovertext=text, hoverinfo="text", row=row, col=col)


def whose(rows: pl.DataFrame) -> dict[str, object]:
    """For the report's filters: the run that a trace shows (`meta`), where its points were measured (`customdata`)."""
    run = rows.select("method", "seed").to_dicts()[:1]
    return {"meta": run[0] if run else {}, "customdata": rows.select("dataset", "split", "fraction").rows()}


def _gap(upper: float | None, lower: float | None) -> float:
    return 0.0 if upper is None or lower is None else upper - lower


def _limits(figure: go.Figure, row: int, col: int, rows: pl.DataFrame, start: float | None) -> tuple[float, float]:
    """Fixes the y axis so that every interval and `start` lie inside; labels are placed within these limits."""
    seen = [x for name in ("value", "ci_low", "ci_high") for x in rows[name].drop_nulls()]
    seen += [] if start is None else [start]
    low, high = min(seen, default=0.0), max(seen, default=1.0)
    pad = 0.05 * (high - low) or 1.0
    figure.update_yaxes(range=[low - pad, high + pad], row=row, col=col)
    return low - pad, high + pad


def _end_labels(
    figure: go.Figure, row: int, col: int, ends: dict[str, list[float]], palette: dict[str, str], x: float,
    limits: tuple[float, float],
) -> None:  # fmt: skip
    means = {method: math.fsum(values) / len(values) for method, values in ends.items()}
    for method, y in apart(means, LABEL_ROOM * (limits[1] - limits[0]), limits).items():
        text = f"<b>{_short(method)}</b>"
        where = {"x": x, "y": y, "xanchor": "left", "yanchor": "middle", "showarrow": False, "xshift": 3}
        figure.add_annotation(**where, text=text, name=method, font={"color": palette[method]}, row=row, col=col)


def apart(wanted: dict[str, float], room: float, limits: tuple[float, float]) -> dict[str, float]:
    """Places near the `wanted` ones, in their order, at least `room` apart and below the upper limit."""
    order = sorted(wanted, key=wanted.get)
    placed: list[float] = []
    for name in order:
        placed.append(max(wanted[name], placed[-1] + room) if placed else wanted[name])
    ceiling = limits[1] - room / 2
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - room
    return dict(zip(order, placed, strict=True))
