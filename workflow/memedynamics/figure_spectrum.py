"""Figure of the analysis `spectrum`: how many directions each method's update has, at equal norm and along training."""

import textwrap
from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels
from memedynamics.gather import BASE

NOTE = (
    "Means over the decoder’s linear layers; bars and bands: 95 % bootstrap over layers (how trainings vary, the seeds "
    "tell). Grey in a, b, f, g: random updates<br>of the same norm and largest rank, a LoRA’s over the same initial A: "
    "the null. a, b, h: where each run’s ‖ΔW‖/‖W<sub>0</sub>‖ first reaches the smallest<br>final one of plain SFT, "
    "DPO and GRPO (of all runs where there is none of these), between milestones. No LoRA update has more directions "
    "than<br>its r. e: leading left singular vectors of W<sub>0</sub>+ΔW that resemble none of W<sub>0</sub>’s. f, g, "
    "j: end of training; f, g: methods at equal seed, seeds of<br>one method. i: share of A’s row space. j: entries "
    "equal to W<sub>0</sub>’s; rounding alone makes them."
)
SHAPES = [
    ("stable_rank", "stable<br>rank"),
    ("participation_ratio", "participation<br>ratio"),
    ("k90", "90 % of<br>energy"),
    ("effective_rank", "effective<br>rank"),
]
UNCHANGED = [("unchanged_float32", "float32"), ("unchanged_bfloat16", "rounded to<br>bfloat16")]
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TICKS = [1, 0.7, 0.5, 0.3, 0.2, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.003, 0.001, 0.0001]
PAIRS = 10  # more of them are shown as a matrix
CLAIM = "effective rank at equal norm minus SFT’s, seed by seed"
VERDICTS = {1: "as supposed", -1: "the opposite", 0: "undecided"}


def figure_spectrum(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `spectrum`; `notes` on the study close its caption."""
    half, third = [{"colspan": 3}, None, None], [{"colspan": 2}, None]
    specs = [half * 2, third * 3, half * 2, third * 3]
    figure = make_subplots(rows=4, cols=6, specs=specs, vertical_spacing=0.085, horizontal_spacing=0.085)
    whole = frame.filter((pl.col("kind") == "all") & pl.col("layer").is_null())
    alone = whole.filter(pl.col("versus").is_null())
    _spectra(figure, alone)
    _directions(figure, alone)
    _along(figure, alone, 2, 1, "c", "Size of the update", "relative_frobenius", "‖ΔW‖ / ‖W<sub>0</sub>‖", 0.0)
    _along(figure, alone, 2, 3, "d", "Effective rank along training", "effective_rank", "effective rank", None)
    _along(figure, alone, 2, 5, "e", "Intruder dimensions", "intruders", "intruders per linear layer", 0.0)
    _overlaps(figure, whole, 1, "f", "Left subspaces shared (what was written)", "overlap_left")
    _overlaps(figure, whole, 4, "g", "Right subspaces shared (mostly A’s start)", "overlap_right")
    _kinds(figure, frame)
    _along(figure, alone, 4, 3, "i", "Drift of A from its start", "drift", "share turned away", 0.0)
    _unchanged(figure, alone)
    for trace in figure.data:
        if trace.hovertext:
            trace.hovertext = [_of_modules(text) for text in trace.hovertext]
    title = "The singular values of each method’s weight update"
    return figures.finish(figure, frame, title, f"{NOTE}{_verdict(whole)}", 4, notes)


def _of_modules(text: str) -> str:
    """A hover text whose items are layers, not prompts, and which belong to no dataset."""
    return text.replace(" prompts", " linear layers").replace(", all all<br>", "<br>")


def _trained(rows: pl.DataFrame, *statistics: str) -> pl.DataFrame:
    return rows.filter((pl.col("update") == "trained") & pl.col("statistic").is_in(statistics))


def _control(rows: pl.DataFrame, by: str) -> pl.DataFrame:
    """Random updates' rows as one line a group: mean over runs, widest interval; drawn as the base is, in grey."""
    random = rows.filter(pl.col("update") == "random").drop_nulls("value")
    ends = [
        pl.col("value").mean(),
        pl.col("ci_low").min(),
        pl.col("ci_high").max(),
        pl.exclude("value", "ci_low", "ci_high").first(),
    ]
    merged = random.group_by(by, maintain_order=True).agg(ends).select(rows.columns)
    return merged.with_columns(method=pl.lit(BASE), seed=pl.lit(None, rows.schema["seed"]))


def _spectra(figure: go.Figure, rows: pl.DataFrame) -> None:
    panels.title(figure, 1, 1, "a", "Spectrum at equal norm")
    for random in _nulls(rows.filter(pl.col("statistic") == "singular_value")):
        _line(figure, random, figures.COLOURS[BASE], 0)
    shown, palette = _trained(rows, "singular_value_at_norm"), figures.colours(rows["method"].to_list())
    for method, seed, place in figures.runs(shown):
        run = shown.filter((pl.col("method") == method) & (pl.col("seed") == seed)).sort("index")
        _line(figure, run, palette[method], place)
    figure.update_xaxes(title_text="singular value, the largest first", showgrid=False, row=1, col=1)
    ticks = {"tickvals": TICKS, "ticktext": [f"{tick:g}" for tick in TICKS]}
    figure.update_yaxes(title_text="σ<sub>i</sub> / ‖ΔW‖", type="log", **ticks, row=1, col=1)


def _nulls(rows: pl.DataFrame) -> list[pl.DataFrame]:
    """The random updates' singular values, one line for all runs whose largest rank is the same."""
    rank = (pl.col("value") > 0).sum().over("method", "seed")
    random = rows.filter(pl.col("update") == "random").with_columns(rank=rank)
    by_rank = random.partition_by("rank", maintain_order=True, include_key=False)
    return [_control(some, "index").sort("index") for some in by_rank]


def _line(figure: go.Figure, run: pl.DataFrame, colour: str, place: int) -> None:
    x, low, high = (run[name].to_list() for name in ("index", "ci_low", "ci_high"))
    whose = panels.whose(run)
    common = {"showlegend": False, "row": 1, "col": 1, "meta": whose["meta"]}
    band = {"x": x + x[::-1], "y": high + low[::-1], "fillcolor": figures.faded(colour, 0.12), "hoverinfo": "skip"}
    figure.add_scatter(**band, **common, customdata=whose["customdata"] * 2, mode="lines", fill="toself", line_width=0)
    symbol, dash = figures.MARKERS[place % len(figures.MARKERS)], figures.DASHES[place % len(figures.DASHES)]
    style = {"line": {"color": colour, "width": 1.5, "dash": dash}, "mode": "lines+markers"}
    marker = {"symbol": symbol, "size": 5, "color": colour, "line": {"width": 1, "color": colour}}
    figure.add_scatter(
        x=x, y=run["value"], **style, **common, marker=marker, customdata=whose["customdata"],
        hovertext=panels.hover(run), hoverinfo="text",
    )  # fmt: skip


def _directions(figure: go.Figure, rows: pl.DataFrame) -> None:
    panels.title(figure, 1, 4, "b", "Directions of the update at equal norm")
    names = [name for name, _ in SHAPES]
    random = _control(rows.filter(pl.col("statistic").is_in(names)), "statistic")
    shown = _trained(rows, *(f"{name}_at_norm" for name in names))
    shown = shown.with_columns(pl.col("statistic").str.strip_suffix("_at_norm"))
    panels.groups(figure, 1, 4, pl.concat([shown, random]), "statistic", SHAPES, "directions")
    figure.update_yaxes(rangemode="tozero", row=1, col=4)


def _along(
    figure: go.Figure, rows: pl.DataFrame, row: int, col: int, letter: str, text: str, statistic: str, unit: str,
    start: float | None,
) -> None:  # fmt: skip
    panels.title(figure, row, col, letter, text)
    panels.curves(figure, row, col, _trained(rows, statistic), unit, start)


def _overlaps(figure: go.Figure, rows: pl.DataFrame, col: int, letter: str, text: str, statistic: str) -> None:
    """Pairs of runs side by side, seeds as markers; in grey the same pairs' random updates."""
    panels.title(figure, 3, col, letter, text)
    pairs = rows.filter(pl.col("statistic") == statistic).drop_nulls("value")
    pairs = pairs.with_columns(pair=pl.struct("method", "versus").map_elements(_pair, return_dtype=pl.String))
    between = pl.col("versus").str.contains(r"^seed\d+$")
    order = pairs.select("pair", between.alias("last")).unique().sort("last", "pair")["pair"].to_list()
    if len(order) > PAIRS:
        return _matrix(figure, pairs.with_columns(between=between), col)
    for at, name in enumerate(order):
        here = pairs.filter(pl.col("pair") == name)
        panels.reference(figure, 3, col, _control(here, "pair").select(rows.columns), at)
        _pair_points(figure, here.filter(pl.col("update") == "trained").sort("seed"), at, col)
    labels = {"tickvals": list(range(len(order))), "ticktext": [name.replace(" ", "<br>", 1) for name in order]}
    axis = {"tickfont": {"size": 9 if len(order) > 7 else 10}, "range": [-0.5, len(order) - 0.5], "showgrid": False}
    figure.update_xaxes(**labels, **axis, row=3, col=col)
    figure.update_yaxes(title_text="share", range=[0, 1.03], row=3, col=col)


def _matrix(figure: go.Figure, pairs: pl.DataFrame, col: int) -> None:
    """Means over seeds as a matrix of methods, on its diagonal between seeds, and what random updates give below it."""
    other = pl.when("between").then("method").otherwise("versus")
    means = (
        pairs.group_by("update", "method", other=other).agg(pl.col("value").mean()).sort("update", "method", "other")
    )
    methods = figures.ordered([*means["method"], *means["other"]])
    found = {frozenset((one, two)): value for update, one, two, value in means.rows() if update == "trained"}
    grid = [[found.get(frozenset((one, two))) for two in methods] for one in methods]
    text = [["" if value is None else f"{value:.2f}" for value in line] for line in grid]
    names = [name if len(name) < 11 else f"{name[:9]}…" for name in map(figures.name, methods)]
    figure.add_heatmap(
        z=grid, x=names, y=names, text=text, texttemplate="%{text}", textfont={"size": 9}, zmin=0, zmax=1,
        colorscale="Greys", showscale=False, hoverinfo="x+y+z", row=3, col=col,
    )  # fmt: skip
    null = pairs.filter(pl.col("update") == "random").group_by("between").agg(pl.col("value").mean())
    said = {between: f"{value:.2f}" for between, value in null.rows()}
    text = f"random updates: {said.get(False, '–')}, between seeds (diagonal) {said.get(True, '–')}"
    figure.update_xaxes(title_text=text, tickfont={"size": 9}, tickangle=30, ticks="", row=3, col=col)
    figure.update_yaxes(autorange="reversed", tickfont={"size": 9}, ticks="", row=3, col=col)


def _pair(names: dict[str, str]) -> str:
    if names["versus"].startswith("seed"):
        return f"{figures.name(names['method'])} seeds"
    return " ".join([f"{figures.name(names['method'])},", figures.name(names["versus"])])


def _pair_points(figure: go.Figure, rows: pl.DataFrame, at: int, col: int) -> None:
    count = len(rows)
    for place, row in enumerate(rows.partition_by("seed", "versus", maintain_order=True)):
        value, low, high = row.select("value", "ci_low", "ci_high").row(0)
        bars = {"type": "data", "symmetric": False, "array": [high - value], "arrayminus": [value - low], "width": 0}
        marker = {"symbol": figures.MARKERS[place % len(figures.MARKERS)], "size": 6.5, "color": "#222222"}
        x = at + panels.SPREAD * ((place + 0.5) / count - 0.5)
        figure.add_scatter(
            x=[x], y=[value], mode="markers", marker=marker, error_y={**bars, "thickness": 1.3}, showlegend=False,
            **panels.whose(row), hovertext=panels.hover(row), hoverinfo="text", row=3, col=col,
        )  # fmt: skip


def _kinds(figure: go.Figure, frame: pl.DataFrame) -> None:
    panels.title(figure, 4, 1, "h", "By kind of layer, equal norm")
    shown = _trained(frame.filter(pl.col("layer").is_null()), "effective_rank_at_norm")
    kinds = shown.filter(pl.col("kind") != "all")["kind"].unique().to_list()
    order = sorted(kinds, key=lambda kind: (KINDS.index(kind) if kind in KINDS else len(KINDS), kind))
    labels = [(kind, kind.removesuffix("_proj")) for kind in order]
    panels.groups(figure, 4, 1, shown, "kind", labels, "effective rank")


def _unchanged(figure: go.Figure, rows: pl.DataFrame) -> None:
    panels.title(figure, 4, 5, "j", "Weights left as they were")
    last = rows.filter(pl.col("fraction") == pl.col("fraction").max())
    names = [name for name, _ in UNCHANGED]
    shown = _trained(last, *names)
    panels.groups(figure, 4, 5, shown, "statistic", UNCHANGED, "share of entries")
    figure.update_yaxes(rangemode="tozero", row=4, col=5)


def _verdict(rows: pl.DataFrame) -> str:
    """What the table says to "SFT has few high singular values, DPO and GRPO more"; empty without SFT."""
    gaps = _trained(rows, "effective_rank_at_norm_difference").drop_nulls("value")
    flipped = gaps.filter((pl.col("method") == "sft") & ~pl.col("versus").str.contains(r"^seed\d+$")).select(
        "seed", method="versus", value=-pl.col("value"), ci_low=-pl.col("ci_high"), ci_high=-pl.col("ci_low")
    )
    given = gaps.filter(pl.col("versus") == "sft").select("seed", "method", "value", "ci_low", "ci_high")
    both = pl.concat([given, flipped.select(given.columns)], how="vertical_relaxed").sort("method", "seed")
    if both.is_empty():
        return ""
    said = [_said(method, both.filter(pl.col("method") == method)) for method in figures.ordered(both["method"])]
    text = f"“SFT has few high singular values, DPO and GRPO more”: {CLAIM}: {'; '.join(said)}."
    return "".join(f"<br>{line}" for line in textwrap.wrap(text, figures.LINE))


def _said(method: str, gaps: pl.DataFrame) -> str:
    sign = int((gaps["ci_low"] > 0).all()) - int((gaps["ci_high"] < 0).all())
    values = ", ".join(f"{value:+.2f}".replace("-", "−") for value in gaps["value"])
    return f"{figures.name(method)} {values} ({VERDICTS[sign]})"
