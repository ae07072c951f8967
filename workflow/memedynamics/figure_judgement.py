"""Figure of the analysis `judgement`: does the judge see what the labels see, or only which response comes first?"""

from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels
from memedynamics.judged_pairs import doubt

NOTE = (
    "A judge reads two responses to a meme in both orders; its preference is the mean over them of P(“1”) / (P(“1”) + "
    "P(“2”)).<br>Bars: 95 % cluster bootstrap over prompts (equal captions are one cluster); a, b dashed: a judge "
    "that tosses a coin.<br>"
    "Label pairs: the correct, well-formed response against the one that the labels reject. Drawn pairs: two base "
    "samples chosen without the<br>label; a takes those of which one alone is correct and well-formed. "
    "b: ½ is a judge that says “1” whatever stands first, −½ one that says “2”.<br>"
    "c: label pairs; a judge that the order does not sway lies on the diagonal, one that is right in both orders in "
    "the upper right quarter;<br>the area of a dot is its share of the pairs. "
    "d: at a label mass near 0 the judge would have said something else than a number."
)
PAIRS = [
    ("labels all", "label pairs,<br>all"), ("labels wrong_answer", "label pairs,<br>wrong answer"),
    ("labels bad_format", "label pairs,<br>bad format"), ("drawn all", "drawn<br>pairs"),
]  # fmt: skip
LEVELS = [
    ("consistency", "same winner<br>in both orders"), ("agreement_consistent", "agreement<br>where so"),
    ("auroc", "AUROC<br> "), ("ece", "calibration<br>error"), ("label_mass", "label<br>mass"),
]  # fmt: skip
LARGEST = 17  # px: the dot that holds all pairs would be


def figure_judgement(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `judgement`; `notes` on the study close its caption."""
    figure = make_subplots(rows=2, cols=2, vertical_spacing=0.17, horizontal_spacing=0.1, column_widths=[0.5, 0.5])
    kinds = frame.with_columns(kind=pl.concat_str("source", "pair_type", separator=" "))
    panels.title(figure, 1, 1, "a", "Agreement with the labels")
    _points(figure, 1, 1, kinds.filter(statistic="agreement"), "kind", PAIRS, "share of pairs", 0.5)
    figure.update_yaxes(range=[-0.02, 1.02], row=1, col=1)
    panels.title(figure, 1, 2, "b", "Preference for the first place")
    _points(figure, 1, 2, kinds.filter(statistic="position_bias"), "kind", PAIRS, "mean P(“1”) − ½", 0.0)
    figure.update_yaxes(range=[-0.52, 0.52], row=1, col=2)
    _orders(figure, frame.filter(statistic="order_share", source="labels"))
    panels.title(figure, 2, 2, "d", "Certainty and soundness on label pairs")
    _points(figure, 2, 2, frame.filter(source="labels", pair_type="all"), "statistic", LEVELS, "share", None)
    figure.update_yaxes(range=[-0.02, 1.02], row=2, col=2)
    done = figures.finish(figure, frame, "What the judge’s preferences are worth", NOTE + _doubt(frame), 2, notes)
    # One judge and no policy: the key of methods has nothing to tell apart.
    return done.update_annotations(selector={"name": figures.KEY}, visible=False)


def _doubt(frame: pl.DataFrame) -> str:
    """A line of the note on a judge that hardly judges the pairs that methods train on."""
    drawn = frame.filter(source="drawn", pair_type="all")
    found = [drawn.filter(statistic=name)["value"].to_list() for name in ("label_mass", "consistency")]
    text = doubt(*(values[0] for values in found)) if all(found) else None
    return f"<br><b>{text[0].upper()}{text[1:]}.</b>" if text else ""


def _points(
    figure: go.Figure, row: int, col: int, rows: pl.DataFrame, by: str, labels: Sequence[tuple[str, str]], unit: str,
    reference: float | None,
) -> None:  # fmt: skip
    """One value with its interval above each of `labels` (value of column `by`, text) that has a row."""
    found = {key: rows.filter(pl.col(by) == key).to_dicts() for key, _ in labels}
    labels = [(key, text) for key, text in labels if found[key] and found[key][0]["value"] is not None]
    edge = [-0.5, len(labels) - 0.5]
    if reference is not None:
        line = {"color": figures.COLOURS["base"], "width": 1.2, "dash": "dash"}
        figure.add_scatter(x=edge, y=[reference] * 2, mode="lines", line=line, showlegend=False, row=row, col=col)
    shown = [found[key][0] for key, _ in labels]
    bars = {"type": "data", "symmetric": False, "thickness": 1.5, "width": 0}
    bars |= {"array": [_gap(r["ci_high"], r["value"]) for r in shown]}
    bars |= {"arrayminus": [_gap(r["value"], r["ci_low"]) for r in shown]}
    text = [f"{r['value']:.3g} [{r['ci_low']:.3g}, {r['ci_high']:.3g}]<br>n = {r['n']} prompts" for r in shown]
    figure.add_scatter(
        x=list(range(len(shown))), y=[r["value"] for r in shown], mode="markers", error_y=bars, hovertext=text,
        hoverinfo="text", marker={"size": 8, "color": _colour()}, cliponaxis=False, showlegend=False, row=row, col=col,
    )  # fmt: skip
    named = [f"{name}<br><b>{_short(r['value'])}</b>" for (_, name), r in zip(labels, shown, strict=True)]
    ticks = {"tickvals": list(range(len(labels))), "ticktext": named}
    figure.update_xaxes(**ticks, range=edge, showgrid=False, row=row, col=col)
    figure.update_yaxes(title_text=unit, row=row, col=col)


def _short(value: float) -> str:
    return (f"{value:.2f}" if value == 0 or abs(value) >= 0.005 else f"{value:.0e}").replace("-", "−")


def _gap(upper: float | None, lower: float | None) -> float:
    return 0.0 if upper is None or lower is None else upper - lower


def _orders(figure: go.Figure, rows: pl.DataFrame) -> None:
    panels.title(figure, 2, 1, "c", "P(the better response) in the two orders")
    common = {"mode": "lines", "showlegend": False, "hoverinfo": "skip", "row": 2, "col": 1}
    half = {"color": "#bbbbbb", "width": 1}
    for x, y, line in (
        ([0, 1], [0, 1], {"color": figures.COLOURS["base"], "width": 1.2, "dash": "dash"}),
        ([0.5, 0.5], [0, 1], half),
        ([0, 1], [0.5, 0.5], half),
    ):
        figure.add_scatter(x=x, y=y, line=line, **common)
    share = rows["value"].to_list()
    text = [f"{value:.1%} of {n} pairs" for value, n in rows.select("value", "n").rows()]
    marker = {"color": figures.faded(_colour(), 0.8), "size": share, "sizemode": "area", "sizemin": 2}
    marker |= {"sizeref": max(share, default=1.0) / LARGEST**2, "line": {"width": 0}}
    figure.add_scatter(
        x=rows["p_better_first"], y=rows["p_better_second"], mode="markers", marker=marker, hovertext=text,
        hoverinfo="text", cliponaxis=False, showlegend=False, row=2, col=1,
    )  # fmt: skip
    figure.update_xaxes(title_text="where it stands first", range=[-0.02, 1.02], row=2, col=1)
    figure.update_yaxes(title_text="where it stands second", range=[-0.02, 1.02], row=2, col=1)


def _colour() -> str:
    return figures.colours(["judge"])["judge"]
