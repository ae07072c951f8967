"""Figure of the analysis `rewards`: the reward and its parts across methods, and groups that taught nothing."""

from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels
from memedynamics.gather import BASE

NOTE = (
    "Bars: 95 % cluster bootstrap over prompts (equal captions are one cluster). a–d: own answers to val; an invalid "
    "answer is wrong; a format is kept only without anything<br>beside the prompt’s blocks. Grey: the base."
)
TRAINED = (
    "<br>e: by the study’s rules, also where a reward model graded (its values are in the table); thin, mean over the "
    "groups of a step; points, over all steps since the milestone<br>before. f: groups whose completions all get one "
    "reward of the run’s own teach nothing; grey: forecast for the prompts drawn, from the base’s samples (posterior "
    "mean, since<br>paired prompts were chosen on these). g: a run’s groups in quarters by forecast; above the line "
    "more were lost than the base would have. h: rollouts on train minus<br>own answers on val between the same "
    "milestones, beyond the base’s gap on the same prompts; gaps of the other parts are in the table."
)


def figure_rewards(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `rewards`; `notes` on the study close its caption.

    Panels on groups of completions are left out where no method draws any.
    """
    learnt = frame.filter(statistic="reward_model_accuracy")
    frame = frame.filter(pl.col("seed").is_not_null() | (pl.col("method") == BASE))
    drawn = frame.filter((pl.col("source") == "rollouts") & pl.col("value").is_not_null())
    rows = 2 if drawn.is_empty() else 4
    figure = make_subplots(rows=rows, cols=2, vertical_spacing=0.34 / rows, horizontal_spacing=0.12)
    val = frame.filter((pl.col("source") == "samples") & (pl.col("split") == "val"))
    _level(figure, val, 1, 1, "a", "Reward on val", "reward", "mean reward")
    _level(figure, val, 1, 2, "b", "Strict format on val", "format_share", "share of answers")
    _level(figure, val, 2, 1, "c", "Accuracy given a parse, val", "accuracy_given_parse", "share of parsed answers")
    _level(figure, val, 2, 2, "d", "Spread of the reward within a prompt, val", "reward_std_within", "std of reward")
    if rows == 4:
        own = val.filter((pl.col("fraction") == 0) & (pl.col("method") != BASE))
        begun = {"elsewhere": own.select("method", "seed").unique().rows(), "among": frame["method"].to_list()}
        _training(figure, drawn, begun["among"])
        _shares(figure, frame, drawn, begun)
        _against(figure, frame, drawn)
        _gap(figure, frame, begun)
    note = (NOTE if rows == 2 else f"{NOTE}{TRAINED}") + "".join(map(_learnt, learnt.to_dicts()))
    # Why a run lacks a gap is the table's business, but for the one that is drawn.
    gap, drawn_gap = pl.col("statistic").str.ends_with("_gap"), pl.col("statistic") == "accuracy_gap"
    shown = frame.filter(pl.col("missing").is_null() | ~gap | drawn_gap)
    return figures.finish(figure, shown, "What each method did to the reward", note, rows, notes)


def _learnt(row: dict) -> str:
    """What the reward model is worth, for the note."""
    share = f"{row['value']:.0%} [{row['ci_low']:.0%}, {row['ci_high']:.0%}]"
    return f"<br>The reward model prefers the chosen response in {share} of {row['n']} pairs that were held out of it."


def _level(
    figure: go.Figure, val: pl.DataFrame, row: int, col: int, letter: str, text: str, statistic: str, unit: str
) -> None:
    panels.title(figure, row, col, letter, text)
    rows = val.filter(pl.col("statistic") == statistic)
    base = rows.filter(pl.col("method") == BASE)["value"].drop_nulls().to_list()
    panels.curves(figure, row, col, rows, unit, next(iter(base), None))


def _training(figure: go.Figure, drawn: pl.DataFrame, among: Sequence[str]) -> None:
    panels.title(figure, 3, 1, "e", "Reward of the rollouts along training")
    rows = drawn.filter(pl.col("statistic") == "rules_reward")
    windows = rows.filter(pl.col("over") == "window")
    palette = figures.colours(among)
    ticks = sorted({0.0, *windows["fraction"]})
    for method, seed, place in figures.runs(rows):
        run = (pl.col("method") == method) & (pl.col("seed") == seed)
        steps = rows.filter(run & (pl.col("over") == "step")).sort("fraction")
        line = {"color": figures.faded(palette[method], 0.4), "width": 1, "dash": figures.DASHES[place % 5]}
        x = [_evenly(fraction, ticks) for fraction in steps["fraction"]]
        thin = {"mode": "lines", "line": line, "hovertext": panels.hover(steps), "hoverinfo": "text"}
        thin |= panels.whose(steps)
        figure.add_scatter(x=x, y=steps["value"], **thin, showlegend=False, row=3, col=1)
    panels.curves(figure, 3, 1, windows, "mean reward", None, among=among)
    figure.update_yaxes(autorange=True, range=None, row=3, col=1)


def _evenly(fraction: float, ticks: Sequence[float]) -> float:
    """Place of `fraction` on an axis where `ticks` are evenly spaced."""
    after = next((i for i, tick in enumerate(ticks) if tick >= fraction), len(ticks) - 1)
    before = max(after - 1, 0)
    width = ticks[after] - ticks[before]
    return before + ((fraction - ticks[before]) / width if width else 0.0)


def _shares(figure: go.Figure, frame: pl.DataFrame, drawn: pl.DataFrame, begun: dict[str, list]) -> None:
    panels.title(figure, 3, 2, "f", "Groups without advantage")
    rows = drawn.filter((pl.col("statistic") == "zero_share") & (pl.col("over") == "window"))
    foretold = _forecast(frame).filter(pl.col("over") == "run")["value"].mean()
    start = None if foretold is None else 100 * foretold
    panels.curves(figure, 3, 2, _percent(rows), "% of groups", start, **begun)


def _forecast(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of the posterior forecast, or of the plug-in where there is no posterior."""
    foretold = frame.filter((pl.col("source") == "forecast") & pl.col("value").is_not_null())
    for name in ("posterior", "plug_in"):
        rows = foretold.filter(pl.col("statistic") == f"zero_share_{name}")
        if len(rows):
            return rows
    return rows


def _percent(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col("value", "ci_low", "ci_high") * 100, unit=pl.lit("%"))


def _against(figure: go.Figure, frame: pl.DataFrame, drawn: pl.DataFrame) -> None:
    panels.title(figure, 4, 1, "g", "Forecast against observed, by quarter")
    quarter = pl.col("over").str.starts_with("quarter")
    seen = _percent(drawn.filter((pl.col("statistic") == "zero_share") & quarter))
    ahead = _percent(_forecast(frame).filter(quarter))
    keys = ["method", "seed", "over"]
    both = seen.join(ahead.select(*keys, "value").rename({"value": "foretold"}), on=keys)
    top = 1.08 * max([*both["ci_high"].drop_nulls(), *both["foretold"], 1.0])
    line = {"mode": "lines", "line": {"color": figures.COLOURS[BASE], "width": 1.5}, "hoverinfo": "skip"}
    figure.add_scatter(x=[0, top], y=[0, top], **line, showlegend=False, row=4, col=1)
    palette = figures.colours(frame["method"].to_list())
    for method, seed, place in figures.runs(both):
        run = both.filter((pl.col("method") == method) & (pl.col("seed") == seed)).sort("over")
        panels._points(figure, 4, 1, run, run["foretold"].to_list(), palette[method], place)
    widest = 1.3 * max([*both["foretold"], 1.0])
    figure.update_xaxes(title_text="forecast from the base’s samples (%)", range=[0, widest], row=4, col=1)
    figure.update_yaxes(title_text="observed (% of groups)", range=[-0.02 * top, top], row=4, col=1)


def _gap(figure: go.Figure, frame: pl.DataFrame, begun: dict[str, list]) -> None:
    panels.title(figure, 4, 2, "h", "Accuracy gained on train beyond val")
    kept = (pl.col("source") == "rollouts") & (pl.col("statistic") == "accuracy_gained_gap")
    panels.curves(figure, 4, 2, _percent(frame.filter(kept)), "train − val (points)", 0.0, **begun)
