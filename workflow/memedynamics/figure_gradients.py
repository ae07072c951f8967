"""Figure of the analysis `gradients`: which objectives pull the same way, where entropy minimisation turns round."""

from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels
from memedynamics.gather import BASE

OBJECTIVES = {
    "sft_label": "SFT, label", "sft_chosen": "SFT, one chosen", "rft": "SFT, all correct", "reinforce": "REINFORCE",
    "dr_grpo": "Dr. GRPO", "grpo": "GRPO", "grpo_reward": "GRPO, whole reward", "dpo": "DPO",
    "grpo_decision": "GRPO, decision", "em_decision": "EM, decision", "em_token": "EM, tokens",
    "em_sequence": "EM, sequence",
}  # fmt: skip
EM = {"em_decision": "#0072B2", "em_token": "#E69F00", "em_sequence": "#CC79A7"}
SHORT = {"em_decision": "decision", "em_token": "tokens", "em_sequence": "sequence"}
BINS = [("below", "0 < p < ½"), ("half", "p = ½"), ("above", "½ < p < 1")]
SIGNS = {"below": "−", "half": "0", "above": "+"}
SCALE = [[0, "#B2182B"], [0.25, "#F4A582"], [0.5, "#FFFFFF"], [0.75, "#92C5DE"], [1, "#2166AC"]]
GREY = "#E3E3E3"  # no cosine: an objective's halves disagree
CROSS = "#9A9A9A"
NOTE = (
    "Gradients by the LoRA factors on the same val memes, summed over memes. Each rests on samples of the policy it is "
    "taken at (on-policy, the pairs<br>of SFT and DPO included): a–d and g of the base. p: a prompt’s share of correct "
    "samples. Bars: 95 % jackknife over memes (equal captions are<br>one cluster; none under three); b: range over 200 "
    "random halves, the grey band what two random directions reach. a, c–g: of the batch; where an<br>objective’s "
    "halves do not agree (b: the range is not above 0) they say nothing beyond it. Grey ×: too few prompts. c, d: "
    "above the groups the<br>theory’s sign for a decision (docs/theory.md, 17). GRPO, decision: the answer alone, "
    "after each response’s own text, without the noise of sampled<br>answers. g: a dot is an adapted module, the line "
    "a layer’s mean."
)
DEPTH = {"sft_chosen": "#0072B2", "dpo": "#D55E00", "grpo_decision": "#009E73", "em_token": "#E69F00"}


def figure_gradients(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `gradients`; `notes` on the study close its caption."""
    specs = [[{"rowspan": 2, "colspan": 2}, None, {}], [None, None, {}], [{}, {}, {}], [{"colspan": 3}, None, None]]
    figure = make_subplots(rows=4, cols=3, specs=specs, vertical_spacing=0.085, horizontal_spacing=0.1)
    start = frame.filter((pl.col("method") == BASE) & (pl.col("module") == "all"))
    _matrix(figure, start)
    _halves(figure, start)
    _by_bin(figure, start, 2, 3, "c", "EM against GRPO of the decision", "grpo_decision")
    _by_bin(figure, start, 3, 1, "d", "EM against sampled GRPO", "grpo")
    _along(figure, frame, 2, "e", "Decision, EM and GRPO, ½ < p < 1", "above")
    _along(figure, frame, 3, "f", "The same, 0 < p < ½", "below")
    _by_depth(figure, frame)
    # Why one cosine is empty is drawn where it would stand; the note keeps why a policy has none at all.
    some = pl.col("value").is_not_null().any().over("method", "seed", "fraction")
    frame = frame.with_columns(missing=pl.when(~some).then("missing"))
    return figures.finish(figure, frame, "How the methods’ gradients relate on one policy", NOTE, 4, notes)


def _matrix(figure: go.Figure, start: pl.DataFrame) -> None:
    panels.title(figure, 1, 1, "a", "Cosine of the objectives’ gradients, base model")
    rows = start.filter((pl.col("statistic") == "cosine") & (pl.col("bin") == "all"))
    known = {frozenset((one, other)): value for one, other, value in rows.select("objective", "other", "value").rows()}
    names = list(OBJECTIVES)
    values = [
        [known.get(frozenset((a, b))) if j < i else None for j, b in enumerate(names)] for i, a in enumerate(names)
    ]
    text = [["" if value is None else f"{value:.2f}".replace("-", "−") for value in row] for row in values]
    bottom, top = figure.get_subplot(1, 1).yaxis.domain
    figure.update_yaxes(domain=[bottom + 0.035, top], row=1, col=1)  # room for the names below
    empty = [[0 if j < i and value is None else None for j, value in enumerate(row)] for i, row in enumerate(values)]
    axes = {"x": list(OBJECTIVES.values()), "y": list(OBJECTIVES.values()), "xgap": 1, "ygap": 1, "showscale": False}
    figure.add_heatmap(z=empty, colorscale=[[0, GREY], [1, GREY]], hoverinfo="skip", **axes, row=1, col=1)
    figure.add_heatmap(
        z=values, **axes, text=text, texttemplate="%{text}",
        textfont={"size": 10}, colorscale=SCALE, zmin=-1, zmax=1, hoverongaps=False,
        hovertemplate="%{y} and %{x}: %{z:.3f}<extra></extra>", row=1, col=1,
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", showline=False, automargin=True, row=1, col=1)
    figure.update_xaxes(tickangle=-45, showgrid=False, ticks="", showline=False, row=1, col=1)


def _halves(figure: go.Figure, start: pl.DataFrame) -> None:
    panels.title(figure, 1, 3, "b", "Do halves of the memes agree?")
    rows = start.filter((pl.col("statistic") == "split_half") & (pl.col("bin") == "all")).drop_nulls("value")
    found = {row["objective"]: row for row in rows.to_dicts()}
    names = [name for name in OBJECTIVES if name in found]
    spread = start.filter(pl.col("statistic") == "random_spread")["value"].drop_nulls().to_list()
    for width in spread[:1]:
        band = {"line_width": 0, "fillcolor": figures.faded(figures.COLOURS[BASE], 0.25), "layer": "below"}
        figure.add_vrect(x0=-2 * width, x1=2 * width, **band, row=1, col=3)
    _bars(figure, 1, 3, [found[name] for name in names], list(range(len(names))), figures.COLOURS[BASE], across=True)
    ticks = {"tickvals": list(range(len(names))), "ticktext": [OBJECTIVES[name] for name in names]}
    figure.update_yaxes(**ticks, range=[len(names) - 0.4, -0.6], tickfont={"size": 9}, row=1, col=3)
    figure.update_xaxes(title_text="cosine of two halves", range=[-1, 1], zeroline=True, row=1, col=3)


def _by_bin(figure: go.Figure, start: pl.DataFrame, row: int, col: int, letter: str, text: str, against: str) -> None:
    panels.title(figure, row, col, letter, text)
    rows = _pairs(start, against)
    for place, (name, colour) in enumerate(EM.items()):
        one = {r["bin"]: r for r in rows.filter(pl.col("em") == name).to_dicts()}
        here = [(at + 0.24 * (place - 1), one[key]) for at, (key, _) in enumerate(BINS) if key in one]
        known = [(x, r) for x, r in here if r["value"] is not None]
        _bars(figure, row, col, [r for _, r in known], [x for x, _ in known], colour)
        _crosses(figure, row, col, [(x, r) for x, r in here if r["value"] is None])
    counted = {r["bin"]: r["n"] for r in rows.to_dicts()}
    labels = [f"{label}<br>n = {counted.get(key, 0)}" for key, label in BINS]
    figure.update_xaxes(
        tickvals=list(range(len(BINS))), ticktext=labels, range=[-0.5, 2.5], showgrid=False, row=row, col=col
    )
    figure.update_yaxes(title_text="cosine", range=[-1.35, 1.35], tickvals=[-1, -0.5, 0, 0.5, 1], row=row, col=col)
    figure.add_hline(y=0, line={"color": "#333333", "width": 1}, row=row, col=col)
    for at, (key, _) in enumerate(BINS):
        figure.add_annotation(x=at, y=1.22, text=f"<b>{SIGNS[key]}</b>", showarrow=False, row=row, col=col)
    for place, (name, colour) in enumerate(EM.items()):
        figure.add_annotation(
            x=-0.42 + 0.95 * place, y=-1.2, text=f"<b>{SHORT[name]}</b>", xanchor="left", showarrow=False,
            font={"color": colour, "size": 10}, row=row, col=col,
        )  # fmt: skip


def _crosses(figure: go.Figure, row: int, col: int, rows: Sequence[tuple[float, dict]]) -> None:
    """A grey × at 0 where a cosine has no value, and why when it is pointed at."""
    marker = {"symbol": "x-thin", "size": 8, "line": {"width": 1.8, "color": CROSS}}
    text = [f"{OBJECTIVES[r['objective']]} and {OBJECTIVES[r['other']]}<br>{r['missing']}" for _, r in rows]
    figure.add_scatter(
        x=[x for x, _ in rows], y=[0] * len(rows), mode="markers", marker=marker, hovertext=text, hoverinfo="text",
        showlegend=False, row=row, col=col,
    )  # fmt: skip


def _nothing(figure: go.Figure, row: int, col: int) -> None:
    """Says why a panel has nothing to draw."""
    figure.add_scatter(x=[None], y=[None], showlegend=False, row=row, col=col)
    figure.add_annotation(
        x=0.5, y=0.5, xref="x domain", yref="y domain", text="no cosine:<br>too few memes",
        showarrow=False, font={"color": "#777777"}, row=row, col=col,
    )  # fmt: skip
    figure.update_xaxes(showticklabels=False, ticks="", showgrid=False, row=row, col=col)
    figure.update_yaxes(showticklabels=False, ticks="", showgrid=False, row=row, col=col)


def _pairs(frame: pl.DataFrame, against: str) -> pl.DataFrame:
    """Cosines of an EM objective (column em) with `against`, whichever of the two stands first."""
    rows = frame.filter((pl.col("statistic") == "cosine") & (pl.col("module") == "all"))
    rows = _versus(rows, against)
    return rows.filter(pl.col("em").is_in(list(EM)))


def _versus(rows: pl.DataFrame, against: str) -> pl.DataFrame:
    """The rows of pairs with `against`; column em is the other of the two."""
    rows = rows.filter((pl.col("objective") == against) != (pl.col("other") == against))
    return rows.with_columns(em=pl.when(pl.col("objective") == against).then("other").otherwise("objective"))


def _along(figure: go.Figure, frame: pl.DataFrame, col: int, letter: str, text: str, key: str) -> None:
    panels.title(figure, 3, col, letter, text)
    rows = _pairs(frame, "grpo_decision").filter((pl.col("em") == "em_decision") & (pl.col("bin") == key))
    start = rows.filter(pl.col("method") == BASE)["value"].drop_nulls().to_list()
    if not len(rows.drop_nulls("value")):
        return _nothing(figure, 3, col)
    at, among = start[0] if start else None, frame["method"].to_list()
    panels.curves(figure, 3, col, rows.filter(pl.col("method") != BASE), "cosine, decision", at, among=among)


def _by_depth(figure: go.Figure, frame: pl.DataFrame) -> None:
    panels.title(figure, 4, 1, "g", "Cosine with GRPO module by module, by the decoder’s layer, base model")
    rows = frame.filter((pl.col("method") == BASE) & (pl.col("module") != "all") & (pl.col("statistic") == "cosine"))
    layer = pl.col("module").str.extract(r"\.layers?\.(\d+)\.").cast(pl.Int64)
    rows = _versus(rows, "grpo").with_columns(layer=layer).drop_nulls(["layer", "value"])
    if rows.is_empty():
        return _nothing(figure, 4, 1)
    for place, (name, colour) in enumerate(DEPTH.items()):
        one = rows.filter(pl.col("em") == name)
        means = one.group_by("layer").agg(pl.col("value").mean()).sort("layer")
        hidden = {"showlegend": False, "row": 4, "col": 1}
        dots = {"x": one["layer"].to_list(), "y": one["value"].to_list(), "hovertext": one["module"].to_list()}
        marker = {"color": figures.faded(colour, 0.45), "size": 5}
        figure.add_scatter(**dots, mode="markers", marker=marker, hoverinfo="text+y", **hidden)
        line = {"color": colour, "width": 2}
        figure.add_scatter(x=means["layer"].to_list(), y=means["value"].to_list(), mode="lines", line=line, **hidden)
        figure.add_annotation(
            x=0.02 + 0.2 * place, y=0.0, xref="x domain", yref="y domain", text=f"<b>{OBJECTIVES[name]}</b>",
            showarrow=False, xanchor="left", yanchor="bottom", font={"color": colour}, row=4, col=1,
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": "#333333", "width": 1}, row=4, col=1)
    figure.update_xaxes(title_text="layer", dtick=max(1, (rows["layer"].max() or 0) // 20), row=4, col=1)
    figure.update_yaxes(title_text="cosine", range=[-1.1, 1.05], row=4, col=1)


def _bars(
    figure: go.Figure, row: int, col: int, rows: Sequence[dict], at: Sequence[float], colour: str, across: bool = False
) -> None:
    value = [r["value"] for r in rows]
    reach = {
        "type": "data", "symmetric": False, "thickness": 1.3, "width": 0, "color": figures.faded(colour, 0.75),
        "array": [(r["ci_high"] if r["ci_high"] is not None else r["value"]) - r["value"] for r in rows],
        "arrayminus": [r["value"] - (r["ci_low"] if r["ci_low"] is not None else r["value"]) for r in rows],
    }  # fmt: skip
    text = [
        f"{OBJECTIVES[r['objective']]} and {OBJECTIVES[r['other']]}<br>{r['value']:.3f}, n = {r['n']} prompts"
        for r in rows
    ]
    axes = {"x": value, "y": at, "error_x": reach} if across else {"x": at, "y": value, "error_y": reach}
    marker = {"size": 7, "color": colour}
    figure.add_scatter(
        **axes, mode="markers", marker=marker, hovertext=text, hoverinfo="text", showlegend=False, row=row, col=col
    )
