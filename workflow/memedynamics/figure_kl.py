"""Figure of the analysis `kl`: how far each method moved, where, on which tokens, and above which noise."""

from collections.abc import Sequence
from itertools import product

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels
from memedynamics.gather import BASE

NOTE = (
    "Sums over a response’s tokens of the KL over the whole vocabulary, mean over prompts; bars: 95 % cluster "
    "bootstrap over prompts (equal captions are one cluster).<br>"
    "Forward on the base’s samples, reverse on each policy’s own. "
    "d–h: end of training; e–h: in-domain val. g: k1 and k3 estimate the same KL from the sampled tokens alone."
    "<br>h: a movement counts where it clears the floors: the base against itself through another code path, and "
    "two seeds of one method against each other<br>(lower bars that reach 0 are left out)."
)
PARENT_NOTE = (
    "<br>i: of runs that began at another’s end, in-domain val; from the parent on what the parent itself answers."
)
SPANS = [("rationale", "rationale"), ("answer", "answer"), ("format", "format<br>tags"), ("end", "end<br>token")]
FLOORS = [("floor", "base, other<br>code path"), ("seeds", "between<br>seeds"), ("moved", "forward KL<br>from base")]
NAT = "nat / response"


def figure_kl(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `kl`; `notes` on the study close its caption."""
    whole, to_parent = frame, frame.filter(pl.col("reference") != BASE)
    frame = frame.filter(pl.col("reference") == BASE)
    wide = [{"colspan": 2}, None]
    last_row = [{"colspan": 3}, None, None] * 2 if to_parent.is_empty() else wide * 3
    specs = [wide * 3, wide * 3, last_row]
    figure = make_subplots(rows=3, cols=6, specs=specs, vertical_spacing=0.11, horizontal_spacing=0.085)
    own = frame.filter(pl.col("versus").is_null())
    val, last = own.filter(pl.col("split") == "val"), _last(own)
    _along(figure, val, 1, "a", "Forward KL(π<sub>0</sub>‖π) on val", "forward", "exact")
    _along(figure, val, 3, "b", "Reverse KL(π‖π<sub>0</sub>) on val", "reverse", "exact")
    _along(figure, val, 5, "c", "KL of the decision, val", "forward", "decision")
    _places(figure, last)
    here = last.filter(pl.col("split") == "val")
    _spans(figure, here)
    _per_token(figure, here)
    _monte_carlo(figure, here)
    _floors(figure, frame, 4 if to_parent.is_empty() else 3)
    _parents(figure, here, to_parent)
    return figures.finish(figure, whole, "How far each method moved from the base model", _note(whole), 3, notes)


def _last(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter((pl.col("method") != BASE) & (pl.col("fraction") == pl.col("fraction").max()))


def _whole(frame: pl.DataFrame, direction: str, estimator: str = "exact") -> pl.DataFrame:
    return frame.filter(
        (pl.col("direction") == direction)
        & (pl.col("estimator") == estimator)
        & pl.col("span").is_in(["all", "answer"] if estimator == "decision" else ["all"])
        & (pl.col("statistic") == "per_response")
    )


def _along(figure: go.Figure, val: pl.DataFrame, col: int, letter: str, text: str, direction: str, kind: str) -> None:
    panels.title(figure, 1, col, letter, text)
    unit = "nat / decision" if kind == "decision" else NAT
    panels.curves(figure, 1, col, _whole(val, direction, kind), unit, 0.0)


def _places(figure: go.Figure, last: pl.DataFrame) -> None:
    panels.title(figure, 2, 1, "d", "Forward KL by data")
    rows = _whole(last, "forward").with_columns(place=pl.concat_str("dataset", "split", separator="/"))
    where = rows.select("dataset", "split", "place").unique()
    home = where.filter(pl.col("split") == "val")["dataset"].to_list()
    found = where.sort(~pl.col("dataset").is_in(home), "dataset", pl.col("split") != "train", "split").rows()
    labels = [(place, split if dataset in home else dataset.replace("_", "<br>", 1)) for dataset, split, place in found]
    panels.groups(figure, 2, 1, rows, "place", labels, NAT)
    figure.update_yaxes(rangemode="tozero", row=2, col=1)


def _spans(figure: go.Figure, val: pl.DataFrame) -> None:
    panels.title(figure, 2, 3, "e", "Forward KL by span (adds up)")
    chosen = (pl.col("direction") == "forward") & (pl.col("estimator") == "exact")
    rows = val.filter(chosen & (pl.col("statistic") == "per_response") & (pl.col("span") != "all"))
    panels.groups(figure, 2, 3, rows, "span", SPANS, NAT)
    figure.update_yaxes(rangemode="tozero", row=2, col=3)


def _per_token(figure: go.Figure, val: pl.DataFrame) -> None:
    panels.title(figure, 2, 5, "f", "KL per token")
    exact = (pl.col("estimator") == "exact") & (pl.col("span") == "all")
    rows = val.filter(exact & (pl.col("statistic") == "per_token"))
    panels.groups(figure, 2, 5, rows, "direction", [("forward", "forward"), ("reverse", "reverse")], "nat / token")
    figure.update_yaxes(rangemode="tozero", row=2, col=5)


def _monte_carlo(figure: go.Figure, val: pl.DataFrame) -> None:
    panels.title(figure, 3, 1, "g", "Check: Monte Carlo beside the exact sum")
    shown = pl.col("estimator").is_in(["exact", "k1", "k3"]) & (pl.col("span") == "all")
    rows = val.filter(shown & (pl.col("statistic") == "per_response")).with_columns(
        pair=pl.concat_str("direction", "estimator", separator=" ")
    )
    pairs = product(("forward", "reverse"), ("exact", "k1", "k3"))
    names = [(f"{side} {kind}", f"{side}<br>{kind}") for side, kind in pairs]
    panels.groups(figure, 3, 1, rows, "pair", names, NAT)


def _floors(figure: go.Figure, frame: pl.DataFrame, col: int) -> None:
    panels.title(figure, 3, col, "h", "Noise floors, log scale")
    whole = (pl.col("split") == "val") & (pl.col("statistic") == "per_response") & (pl.col("span") == "all")
    rows = frame.filter(whole & (pl.col("value") > 0)).with_columns(kind=_kind(frame["fraction"].max()))
    rows = rows.drop_nulls("kind")
    # A lower end at or below 0 has no place on a log axis.
    positive = pl.when(pl.col("ci_low") > 0).then("ci_low")
    panels.groups(figure, 3, col, rows.with_columns(ci_low=positive), "kind", FLOORS, NAT)
    figure.update_yaxes(type="log", dtick=2, tickfont={"size": 9}, row=3, col=col)


def _parents(figure: go.Figure, val: pl.DataFrame, to_parent: pl.DataFrame) -> None:
    """Runs that began at another's end: how far from the base, and how far from where they began."""
    if to_parent.is_empty():
        return
    panels.title(figure, 3, 5, "i", "Forward KL from base and from parent")
    beside = val.join(to_parent.select("method").unique(), "method", "semi")
    theirs = _last(to_parent.filter(pl.col("versus").is_null() & (pl.col("split") == "val")))
    rows = pl.concat([_whole(found, "forward") for found in (beside, theirs)])
    parents = sorted(to_parent["reference"].unique())
    names = [(BASE, "base"), *((parent, figures.name(parent)) for parent in parents)]
    panels.groups(figure, 3, 5, rows, "reference", names, NAT, among=val["method"].to_list())


def _kind(end: float) -> pl.Expr:
    """The group of FLOORS that a row of a whole response's KL belongs to, if any."""
    exact, at_end = pl.col("estimator") == "exact", pl.col("fraction") == end
    moved = exact & (pl.col("direction") == "forward") & pl.col("versus").is_null()
    return (
        pl.when((pl.col("direction") == "between_seeds") & at_end)
        .then(pl.lit("seeds"))
        .when(exact & (pl.col("versus") == "other_path"))
        .then(pl.lit("floor"))
        .when(moved & at_end)
        .then(pl.lit("moved"))
    )


def _note(frame: pl.DataFrame) -> str:
    """NOTE, and how many responses were cut, from whose KL the tail is missing."""
    told = NOTE + PARENT_NOTE if (frame["reference"] != BASE).any() else NOTE
    cut = frame.filter((pl.col("statistic") == "cut_share") & (pl.col("split") == "val"))
    base = cut.filter(pl.col("probe_kind") == "base_sample")["value"].max() or 0
    own = cut.filter(pl.col("probe_kind") == "own_sample")["value"].max() or 0
    return f"{told}<br>Responses cut at max_new_tokens on val: base {base:.1%}, policies at most {own:.1%}."
