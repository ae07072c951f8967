"""Figure of the analysis `kl`: how far each method moved from the base, where, and in which part of the response."""

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures
from memedynamics.gather import BASE

SPANS = ("format", "rationale", "answer", "end")
NOTE = (
    "Exact KL over the vocabulary at every token, summed over a response. Bars and bands: 95 % cluster bootstrap over "
    "prompts.<br>Dotted grey: noise floor, the base against itself through the other code path (left out where it is "
    "under 1e-6 nat).<br>a, b, d, e on the base’s samples; c on the policy’s own. e: between the "
    "Bernoulli distributions of P(Yes)."
)


def figure_kl(frame: pl.DataFrame) -> go.Figure:
    """Forward and reverse KL along training on val; forward KL at the end by data, by span and against Monte Carlo."""
    titles = [
        "<b>a</b>  Forward KL on val",
        "<b>b</b>  Forward KL at the end",
        "<b>c</b>  Reverse KL on val, own samples",
        "<b>d</b>  Forward KL at the end, val, by span",
        "<b>e</b>  Decision KL on val",
    ]
    figure = make_subplots(
        rows=2, cols=6, specs=[[{"colspan": 3}, None, None] * 2, [{"colspan": 2}, None] * 3],
        subplot_titles=titles, vertical_spacing=0.2, horizontal_spacing=0.1,
    )  # fmt: skip
    levels = frame.filter((pl.col("direction") != "between_seeds") & ~pl.col("statistic").str.ends_with("_difference"))
    per_response = levels.filter((pl.col("statistic") == "per_response") & (pl.col("estimator") == "exact"))
    whole = per_response.filter(pl.col("span") == "all")
    val = pl.col("split") == "val"
    forward, reverse = pl.col("direction") == "forward", pl.col("direction") == "reverse"
    decision = levels.filter((pl.col("estimator") == "decision") & (pl.col("statistic") == "per_response"))
    _along(figure, whole.filter(val & forward), 1, 1, "KL(π0‖π) (nat/response)")
    _final(figure, whole.filter(forward), ["dataset", "split"], 1, 4)
    _along(figure, whole.filter(val & reverse), 2, 1, "KL(π‖π0) (nat/response)")
    _final(figure, per_response.filter(val & forward & (pl.col("span") != "all")), ["span"], 2, 3)
    _along(figure, decision.filter(val & forward), 2, 5, "KL of P(yes) (nat)")
    figures.add_key(figure, _methods(frame), figures.seeds_of(frame), base=False)
    figures.left_titles(figure)
    return figures.finish(figure, "How far each method moved from the base model", NOTE, 1120, 800)


def _methods(frame: pl.DataFrame) -> list[str]:
    return [method for method in figures.ordered(frame["method"].to_list()) if method != BASE]


def _along(figure: go.Figure, here: pl.DataFrame, row: int, col: int, unit: str) -> None:
    """A quantity against the fraction of training, from 0 where every run is the base; the noise floor dotted."""
    palette, seeds = figures.colours(here["method"].to_list()), figures.seeds_of(here)
    ends = {}
    for method in _methods(here):
        for i, seed in enumerate(seeds):
            run = here.filter((pl.col("method") == method) & (pl.col("seed") == seed))
            figures.draw_curve(figure, run, row, col, palette[method], i, 0.0)
        last = here.filter((pl.col("method") == method) & (pl.col("fraction") == here["fraction"].max()))
        ends[method] = last["value"].mean()
    floor = here.filter(pl.col("method") == BASE)["value"].max()
    if floor is not None and floor > 1e-6:
        line = {"color": figures.BASE_COLOUR, "width": 1.5, "dash": "dot"}
        figure.add_hline(y=floor, line=line, layer="below", row=row, col=col)
    figures.label_ends(figure, ends, row, col)
    figure.update_xaxes(title_text="fraction of training", range=[-0.03, 1.22], tickvals=[0, 0.5, 1], row=row, col=col)
    figure.update_yaxes(title_text=unit, rangemode="tozero", row=row, col=col)


def _final(figure: go.Figure, here: pl.DataFrame, by: list[str], row: int, col: int) -> None:
    """Groups along x (dataset and split, or span), every run a point with its interval."""
    last = here.filter((pl.col("method") != BASE) & (pl.col("fraction") == pl.col("fraction").max()))
    groups = last.select(by).unique().rows()
    groups.sort(key=lambda group: SPANS.index(group[0]) if by == ["span"] else (group[1] == "test", group))
    palette, seeds, methods = figures.colours(here["method"].to_list()), figures.seeds_of(last), _methods(last)
    step = 0.7 / max(1, len(methods) * len(seeds) - 1)
    for at, group in enumerate(groups):
        chosen = last.filter(pl.all_horizontal(pl.col(name) == value for name, value in zip(by, group, strict=True)))
        for i, (method, seed) in enumerate((m, s) for m in methods for s in seeds):
            run = chosen.filter((pl.col("method") == method) & (pl.col("seed") == seed))
            x = [at - 0.35 + i * step] * len(run)
            figures.draw_points(figure, run, x, row, col, palette[method], seeds.index(seed))
    labels = [figures.place(*group, [d for d, _ in groups]) if len(by) == 2 else group[0] for group in groups]
    figure.update_xaxes(tickvals=list(range(len(groups))), ticktext=labels, showgrid=False, row=row, col=col)
    figure.update_yaxes(title_text="KL(π0‖π) (nat/response)", rangemode="tozero", row=row, col=col)
