"""Figure of the analysis `likelihood`: what became of the chosen and the rejected response, and where the rest went."""

from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels
from memedynamics.gather import BASE

NOTE = (
    "Pairs are two fixed samples of the base. Change: log π(y) − log π<sub>0</sub>(y), summed over tokens, mean over "
    "prompts; margin: change of chosen − change of rejected.<br>Bars: 95 % cluster bootstrap over prompts (equal "
    "captions are one cluster). g–j: end of training; all but g: in-domain val.<br>d, g, i: the chosen response fell "
    "while the margin is above 0. e: the base’s margins are all 0 and count ½. f: ⟨S<sub>+</sub>, S<sub>−</sub>⟩ "
    "− ‖S<sub>+</sub>‖² of the policy’s last hidden<br>states less the base’s on the same pair, each sum S divided by "
    "its tokens; CHES itself is in the table. h: per token, since the texts differ in length; a policy that<br>"
    "squeezes lowers all but the greedy path. j: Spearman between CHES under π<sub>0</sub> and the change of the "
    "chosen; negative where CHES predicts displacement (Razin<br>et al. 2410.08847, who saw Llama-3-8B’s refusals fall "
    "from 74.4 % to 33.4 % under DPO: context, not this data)."
)
TEXTS = [
    ("chosen", "chosen"),
    ("correct_other", "another<br>correct"),
    ("greedy", "greedy<br>path"),
    ("gold_answer", "bare gold<br>answer"),
    ("other_image", "chosen of<br>other image"),
    ("rejected", "rejected"),
    ("permuted", "tokens<br>permuted"),
]
PREDICTORS = [("ches_correlation", "CHES"), ("ches_normalised_correlation", "per token")]
DISPLACED = "displaced pairs (%)"
TYPES = [("wrong_answer", "wrong answer"), ("bad_format", "bad format")]


def figure_likelihood(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `likelihood`; `notes` on the study close its caption."""
    third = [{"colspan": 4}, None, None, None]
    specs = [
        third * 3,
        [{"colspan": 3}, None, None] * 4,
        [{"colspan": 6}, *[None] * 5, *[{"colspan": 3}, None, None] * 2],
    ]
    figure = make_subplots(rows=3, cols=12, specs=specs, vertical_spacing=0.11, horizontal_spacing=0.083)
    own = frame.filter(pl.col("versus").is_null() & pl.col("missing").is_null())
    whole = own.filter(pl.col("pair_type") == "all")
    val, last = whole.filter(pl.col("split") == "val"), _last(own)
    _along(figure, val, 1, 1, "a", "Chosen response", "chosen", "change", "change (nat)", 0.0)
    _along(figure, val, 1, 5, "b", "Rejected response", "rejected", "change", "change (nat)", 0.0)
    _along(figure, val, 1, 9, "c", "Margin of chosen over rejected", "pair", "margin", "margin (nat)", 0.0)
    _along(figure, val, 2, 1, "d", "Displaced pairs", "pair", "displaced_share", DISPLACED, 0.0)
    _along(figure, val, 2, 4, "e", "Implicit-reward accuracy", "pair", "accuracy", "margins above 0 (%)", 50.0)
    _along(
        figure, val, 2, 7, "f", "CHES of the policy", "pair", "ches_normalised_change", "change of CHES per token", 0.0
    )
    _places(figure, last.filter(pl.col("pair_type") == "all"))
    _types(figure, last.filter(pl.col("split") == "val"))
    here = last.filter((pl.col("split") == "val") & (pl.col("pair_type") == "all"))
    _texts(figure, here)
    _predicted(figure, here)
    # What rewards a method lacks is the table's business: the figure shows none.
    shown = frame.filter(pl.col("missing").is_null())
    return figures.finish(figure, shown, "What each method did to the likelihood of fixed responses", NOTE, 3, notes)


def _last(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter((pl.col("method") != BASE) & (pl.col("fraction") == pl.col("fraction").max()))


def _percent(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col("value", "ci_low", "ci_high") * 100, unit=pl.lit("%"))


def _along(
    figure: go.Figure, val: pl.DataFrame, row: int, col: int, letter: str, title: str, text: str, statistic: str,
    unit: str, start: float,
) -> None:  # fmt: skip
    panels.title(figure, row, col, letter, title)
    rows = val.filter((pl.col("text") == text) & (pl.col("statistic") == statistic) & (pl.col("method") != BASE))
    panels.curves(figure, row, col, _percent(rows) if "%" in unit else rows, unit, start)


def _places(figure: go.Figure, last: pl.DataFrame) -> None:
    panels.title(figure, 2, 10, "g", "Displacement by data")
    rows = _percent(last.filter(pl.col("statistic") == "displaced_share"))
    rows = rows.with_columns(place=pl.concat_str("dataset", "split", separator="/"))
    where = rows.select("dataset", "split", "place").unique()
    home = where.filter(pl.col("split") == "val")["dataset"].to_list()
    found = where.sort(~pl.col("dataset").is_in(home), "dataset", pl.col("split") != "train", "split").rows()
    labels = [(place, split if dataset in home else dataset.replace("_", "<br>", 1)) for dataset, split, place in found]
    panels.groups(figure, 2, 10, rows, "place", labels, DISPLACED)
    figure.update_yaxes(rangemode="tozero", row=2, col=10)


def _texts(figure: go.Figure, here: pl.DataFrame) -> None:
    panels.title(figure, 3, 1, "h", "Where the probability went: change by text")
    rows = here.filter(pl.col("statistic") == "change_per_token")
    panels.groups(figure, 3, 1, rows, "text", TEXTS, "change (nat / token)")
    figure.update_xaxes(tickfont={"size": 10}, tickangle=0, row=3, col=1)
    _zero(figure, 3, 1)


def _types(figure: go.Figure, val: pl.DataFrame) -> None:
    panels.title(figure, 3, 7, "i", "Displacement by pair")
    rows = _percent(val.filter(pl.col("statistic") == "displaced_share"))
    panels.groups(figure, 3, 7, rows, "pair_type", TYPES, DISPLACED)
    figure.update_yaxes(rangemode="tozero", row=3, col=7)


def _predicted(figure: go.Figure, here: pl.DataFrame) -> None:
    panels.title(figure, 3, 10, "j", "CHES against change")
    rows = here.filter(pl.col("statistic").is_in([name for name, _ in PREDICTORS]))
    panels.groups(figure, 3, 10, rows, "statistic", PREDICTORS, "rank correlation")
    _zero(figure, 3, 10)


def _zero(figure: go.Figure, row: int, col: int) -> None:
    figure.add_hline(y=0, line={"color": figures.COLOURS[BASE], "width": 1.5}, layer="below", row=row, col=col)
