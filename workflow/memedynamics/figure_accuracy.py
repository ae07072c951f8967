"""Figure of the analysis `accuracy`: where each method ends, how it gets there, and what it overfits."""

from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels
from memedynamics.gather import BASE

NOTE = (
    "Bars: 95 % cluster bootstrap over prompts (equal captions are one cluster), paired across methods; an invalid "
    "answer is wrong. Grey: the base and its interval.<br>c, d: policy minus base on the same prompts. "
    "e: share of decisions P(Yes) ≥ ½ on the label’s side after the base’s rationales; above the base is overfitting."
    "<br>F1 of the sampled answers and of the decision P(Yes) ≥ ½ are in the table, as f1 and decision_f1."
)
LEVEL = 0.05


def figure_accuracy(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `accuracy`; `notes` on the study close its caption."""
    specs = [[{"colspan": 3}, None, None] * 2, [{"colspan": 2}, None] * 3]
    figure = make_subplots(rows=2, cols=6, specs=specs, vertical_spacing=0.17, horizontal_spacing=0.085)
    percent = frame.with_columns(pl.col("value", "ci_low", "ci_high") * 100, unit=pl.lit("%"))
    alone = percent.filter(pl.col("versus").is_null())
    _final(figure, alone, 1, "a", "Accuracy at the end of training", "accuracy", "accuracy (%)")
    _final(figure, alone, 4, "b", "AUROC at the end of training", "auroc", "AUROC (%)")
    gained = percent.filter((pl.col("versus") == BASE) & (pl.col("split") == "val"))
    gap = alone.filter(pl.col("split") == "train-val")
    _along(figure, gained, 1, "c", "Accuracy gained on val", "accuracy_difference", "gain over base (points)", 0.0)
    _along(figure, gained, 3, "d", "Format gained on val", "format_share_difference", "gain over base (points)", 0.0)
    _along(figure, gap, 5, "e", "Overfitting of the decision", "probe_accuracy_gap", "train − val (points)")
    note = f"{NOTE}<br>{_votes(frame.filter(pl.col('split') == 'val'))}"
    return figures.finish(figure, frame, "What each method did to accuracy", note, 2, notes)


def _final(figure: go.Figure, rows: pl.DataFrame, col: int, letter: str, text: str, statistic: str, unit: str) -> None:
    panels.title(figure, 1, col, letter, text)
    rows = rows.filter(pl.col("statistic") == statistic)
    policies = pl.col("method") != BASE
    last = rows.filter(policies & (pl.col("fraction") == pl.col("fraction").filter(policies).max()))
    place = pl.concat_str("dataset", "split", separator="<br>")
    rows = pl.concat([rows.filter(~policies), last]).with_columns(place=place)
    home = rows.filter(pl.col("split") == "val")["dataset"].to_list()
    found = rows.filter(policies).select("dataset", "split", "place").unique()
    order = found.sort(~pl.col("dataset").is_in(home), "dataset", pl.col("split") != "val", "split")["place"]
    panels.groups(figure, 1, col, rows, "place", [(name, name) for name in order], unit)


def _along(
    figure: go.Figure, rows: pl.DataFrame, col: int, letter: str, text: str, statistic: str, unit: str,
    start: float | None = None,
) -> None:  # fmt: skip
    """Curves start at the base's value, which is `start` where the statistic compares with the base itself."""
    panels.title(figure, 2, col, letter, text)
    rows = rows.filter(pl.col("statistic") == statistic)
    base = rows.filter(pl.col("method") == BASE)["value"].to_list()
    panels.curves(figure, 2, col, rows, unit, start if start is not None else next(iter(base), None))


def _votes(val: pl.DataFrame) -> str:
    """Which majority votes differ at the end of training, in every seed and the same direction."""
    names = ["mcnemar_p_holm", "only_this_right", "only_versus_right"]
    tests = val.filter(pl.col("statistic").is_in(names)).pivot(
        "statistic", index=["method", "versus", "seed"], values="value"
    )
    if tests.is_empty():
        return "Nothing to compare majority votes with."
    better = pl.col("only_this_right") > pl.col("only_versus_right")
    pairs = tests.group_by("method", "versus").agg(
        clear=(pl.col("mcnemar_p_holm") < LEVEL).all(), up=better.all(), down=(~better).all()
    )
    clear = pairs.filter(pl.col("clear") & (pl.col("up") | pl.col("down"))).sort("versus", "method")
    rest = len(pairs) - len(clear)
    names = [(figures.name(method), figures.name(versus), up) for method, versus, _, up, _ in clear.rows()]
    found = ", ".join(f"{a} > {b}" if up else f"{b} > {a}" for a, b, up in names)
    others = f"; {rest} other pairs do not" if found and rest else "" if found else f"none of {rest} pairs"
    test = f"exact McNemar, Holm, p &lt; {LEVEL}"
    return f"Majority votes that differ on val in every seed ({test}): {found}{others}."
