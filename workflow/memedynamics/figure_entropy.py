"""Figure of the analysis `entropy`: surer or only more accurate, where the doubt lies, can it be trusted?"""

from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels
from memedynamics.entropy_paths import ALL_RUNS
from memedynamics.gather import BASE

NOTE = (
    "Bars: 95 % cluster bootstrap over prompts (equal captions are one cluster), paired across methods; for “if "
    "calibrated” the 95 % range of the null. Grey: the base<br>"
    "and its interval. Entropy of the answer: H(mean q), q = P(Yes | Yes or No) after each of a prompt’s K own "
    "rationales, jackknifed over K; a response without an<br>"
    "answer is decided after a forced header (the table has other treatments). a: a point a milestone, the last one "
    "large, on the memes that all answered at all of them.<br>"
    "b: entropy where both first reach the highest accuracy common to both. c–i: end of training; all but h: in-domain "
    "val. c: the second and third add up to the first.<br>"
    "d: ten bins of equal mass; the interval of ECE is freed of the bias that resampling adds, and reaches 0 where the "
    "model may be calibrated; sure: confidence of at<br>"
    "least 0.9. e: decisions in the order of their confidence. f: over the vocabulary, on own samples. g: mutual "
    "information from sampled answers, less what shuffled<br>"
    "prompts show; an interval from 0: chance may explain it. h: ½ says nothing about errors. i: without responses "
    "that have no answer. Published conditional decision<br>"
    "entropy / F1 (%) of Qwen2.5-VL-7B on Hateful Memes: zero-shot .33 / 65.9, SFT .33 / 74.5, DPO .32 / 73.6, "
    "GRPO .26 / 74.5: context, not this data."
)
PAIRED = 3  # most methods of which b shows every pair
CROWDED = 8  # more runs than these have an interval at the last point of a line only
TERMS = [
    ("entropy", "of the<br>answer"),
    ("entropy_given_rationale", "given the<br>rationale"),
    ("information_rationale", "between<br>rationales"),
]
ERRORS = [("ece", "ECE"), ("ece_null", "ECE if<br>calibrated"), ("brier", "Brier"),
          ("confident_error_rate", "sure and<br>wrong")]  # fmt: skip
SPANS = [("rationale", "rationale"), ("answer", "answer"), ("format", "format<br>tags"), ("end", "end<br>token")]
KNOWN = [("information_label", "about the<br>label"), ("information_base", "about the<br>base’s answer")]
ESTIMATORS = [("exact", "exact"), ("exact_uncorrected", "no jack-<br>knife"), ("plug_in", "plug-in"),
              ("posterior", "posterior")]  # fmt: skip


def figure_entropy(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `entropy`; `notes` on the study close its caption."""
    figure = make_subplots(rows=3, cols=3, vertical_spacing=0.11, horizontal_spacing=0.085)
    found = frame.filter(pl.col("method") != ALL_RUNS)
    val = found.filter(pl.col("split") == "val")
    last = _last(val)
    headline = pl.col("estimator").is_null() | (pl.col("estimator") == "exact")
    main = last.filter(headline & (pl.col("invalid").is_null() | (pl.col("invalid") == "forced")))
    _path(figure, val)
    _matched(figure, val)
    alone = main.filter(pl.col("versus").is_null())
    _groups(figure, 1, 3, "c", "Parts of the entropy", alone, TERMS, "nat")
    _groups(figure, 2, 1, "d", "Calibration of the decision", alone, ERRORS, "ECE, Brier, share")
    _risk(figure, alone.filter(pl.col("statistic") == "risk"))
    _spans(figure, last)
    sampled = last.filter((pl.col("estimator") == "plug_in") & (pl.col("invalid") == "third"))
    _groups(figure, 3, 1, "g", "What an answer tells", sampled, KNOWN, "nat")
    figure.update_yaxes(rangemode="tozero", row=3, col=1)
    _places(figure, _last(found))
    _estimators(figure, last)
    return figures.finish(figure, found, "Are more accurate policies surer, and rightly so?", _note(frame), 3, notes)


def _last(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter((pl.col("method") == BASE) | (pl.col("fraction") == pl.col("fraction").max()))


def _groups(
    figure: go.Figure, row: int, col: int, letter: str, text: str, rows: pl.DataFrame, labels: list, unit: str,
    by: str = "statistic", among: Sequence[str] = (),
) -> None:  # fmt: skip
    panels.title(figure, row, col, letter, text)
    if rows.filter(pl.col(by).is_in([value for value, _ in labels])).drop_nulls("value").is_empty():
        return _nothing(figure, row, col)
    panels.groups(figure, row, col, rows, by, labels, unit, among)
    figure.update_xaxes(tickangle=0, row=row, col=col)


def _nothing(figure: go.Figure, row: int, col: int) -> None:
    """An empty panel that says so; without a trace Plotly would drop its axes and move its title."""
    figure.add_scatter(x=[0], y=[0], opacity=0, hoverinfo="skip", showlegend=False, row=row, col=col)
    figure.add_annotation(x=0, y=0, text="nothing to compare", yshift=14, showarrow=False, row=row, col=col)
    bare = {"showticklabels": False, "showgrid": False, "ticks": "", "row": row, "col": col}
    figure.update_xaxes(**bare)
    figure.update_yaxes(**bare)


def _path(figure: go.Figure, val: pl.DataFrame) -> None:
    panels.title(figure, 1, 1, "a", "Accuracy and entropy along training")
    names = ["path_accuracy", "path_entropy"]
    rows = val.filter(pl.col("statistic").is_in(names))
    if rows.is_empty():
        return _nothing(figure, 1, 1)
    base = rows.filter(pl.col("method") == BASE)
    for method, seed, place in figures.runs(rows):
        run = rows.filter((pl.col("method") == method) & (pl.col("seed") == seed))
        # A run with a start of its own does not begin at the base.
        points = run if (run["fraction"] == 0).any() else pl.concat([base, run])
        points = points.sort("fraction", "statistic")
        accuracy, entropy = (points.filter(pl.col("statistic") == name) for name in names)
        _line(figure, 1, 1, accuracy.with_columns(pl.col("value") * 100), entropy, method, place, rows)
    if len(base):
        accuracy, entropy = (base.filter(pl.col("statistic") == name) for name in names)
        _line(figure, 1, 1, accuracy.with_columns(pl.col("value") * 100), entropy, BASE, 0, rows)
    figure.update_xaxes(title_text="accuracy on val (%)", row=1, col=1)
    figure.update_yaxes(title_text="entropy of the answer (nat)", row=1, col=1)


def _line(
    figure: go.Figure, row: int, col: int, x: pl.DataFrame, y: pl.DataFrame, method: str, place: int, rows: pl.DataFrame
) -> None:
    """One run's points, joined, with intervals of y; the last point is larger."""
    crowded = len(figures.runs(rows)) > CROWDED
    colour = figures.colours(rows["method"].to_list())[method]
    value, low, high = (y[name].to_list() for name in ("value", "ci_low", "ci_high"))
    shown = [not crowded or i == len(value) - 1 for i in range(len(value))]
    bars = {
        "type": "data", "symmetric": False, "thickness": 1, "width": 0, "color": figures.faded(colour, 0.4),
        "array": [(b - a) * k for a, b, k in zip(value, high, shown, strict=True)],
        "arrayminus": [(a - b) * k for a, b, k in zip(value, low, shown, strict=True)],
    }  # fmt: skip
    marker = {
        "symbol": figures.MARKERS[place % len(figures.MARKERS)], "color": colour, "opacity": 1,
        "line": {"width": 1.5, "color": colour}, "size": [4.5] * (len(value) - 1) + [9],
    }  # fmt: skip
    line = {"color": colour, "width": 1.5, "dash": figures.DASHES[place % len(figures.DASHES)]}
    style = {
        "mode": "lines+markers",
        "marker": marker,
        "line": line,
        "error_y": bars,
        "showlegend": False,
        "cliponaxis": False,
    }
    told = {"hovertext": panels.hover(y), "hoverinfo": "text", **panels.whose(y)}
    # Its first point may be the base's.
    told["meta"] = {"method": method, "seed": y["seed"][-1]}
    figure.add_scatter(x=x["value"].to_list(), y=value, **style, **told, row=row, col=col)


def _matched(figure: go.Figure, val: pl.DataFrame) -> None:
    """Every pair of up to three methods; of more, each against the first."""
    rows = val.filter(pl.col("statistic") == "matched_entropy_difference").drop_nulls("value")
    rows, unit = rows.with_columns(pair=pl.concat_str("method", "versus", separator=" ")), "difference (nat)"
    names = figures.ordered([*rows["method"], *rows["versus"]])
    pairs = rows.select("method", "versus", "pair").unique().sort("pair").rows()
    labels = [(pair, f"{figures.name(a)}<br>− {figures.name(b)}") for a, b, pair in pairs]
    if len(names) > PAIRED:
        rows, unit = _against(rows, names[0]), f"method − {figures.name(names[0])} (nat)"
        labels = [(name, figures.name(name)[:10]) for name in names[1:]]
    among = val["method"].to_list()
    _groups(figure, 1, 2, "b", "Entropy at equal accuracy", rows, labels, unit, by="pair", among=among)
    figure.update_xaxes(tickangle=0 if len(names) <= 5 else -40, row=1, col=2)
    figure.add_hline(y=0, line={"color": figures.COLOURS[BASE], "width": 1}, row=1, col=2)


def _against(rows: pl.DataFrame, first: str) -> pl.DataFrame:
    """The differences of each method with `first`, in this order, in whichever order they are in the table."""
    turned = rows.filter(pl.col("method") == first).with_columns(
        method="versus", value=-pl.col("value"), ci_low=-pl.col("ci_high"), ci_high=-pl.col("ci_low")
    )
    return pl.concat([rows.filter(pl.col("versus") == first), turned]).with_columns(pair="method")


def _risk(figure: go.Figure, rows: pl.DataFrame) -> None:
    panels.title(figure, 2, 2, "e", "Errors among the surest")
    rows = rows.with_columns(pl.col("value", "ci_low", "ci_high") * 100)
    found = [(BASE, None, 0), *figures.runs(rows)]
    for at, (method, seed, place) in enumerate(found):
        shift = 5 * (at / len(found) - 0.5)  # of the 10 points between two coverages
        run = rows.filter((pl.col("method") == method) & pl.col("seed").eq_missing(seed)).sort("coverage")
        if len(run):
            _line(figure, 2, 2, run.with_columns(value=pl.col("coverage") * 100 + shift), run, method, place, rows)
    figure.update_xaxes(title_text="prompts answered, surest first (%)", dtick=20, row=2, col=2)
    figure.update_yaxes(title_text="wrong decisions (%)", rangemode="tozero", row=2, col=2)


def _spans(figure: go.Figure, last: pl.DataFrame) -> None:
    own = (pl.col("probe_kind") == "own_sample") | (pl.col("method") == BASE)
    rows = last.filter((pl.col("statistic") == "token_entropy") & own)
    _groups(figure, 2, 3, "f", "Token entropy by span", rows, SPANS, "nat / token", by="span")
    figure.update_yaxes(rangemode="tozero", row=2, col=3)


def _places(figure: go.Figure, last: pl.DataFrame) -> None:
    rows = last.filter(pl.col("statistic") == "auroc_error", pl.col("versus").is_null())
    rows = rows.with_columns(place=pl.concat_str("dataset", "split", separator="/"))
    home = rows.filter(pl.col("split") == "val")["dataset"].to_list()
    found = rows.select("dataset", "split", "place").unique()
    order = found.sort(~pl.col("dataset").is_in(home), "dataset", pl.col("split") != "val", "split").rows()
    labels = [(place, split if dataset in home else dataset.replace("_", "<br>", 1)) for dataset, split, place in order]
    _groups(figure, 3, 2, "h", "Does entropy mark errors?", rows, labels, "AUROC", by="place")
    figure.add_hline(y=0.5, line={"color": figures.COLOURS[BASE], "width": 1, "dash": "dot"}, row=3, col=2)


def _estimators(figure: go.Figure, last: pl.DataFrame) -> None:
    rows = last.filter((pl.col("statistic") == "entropy") & (pl.col("invalid") == "dropped"))
    _groups(figure, 3, 3, "i", "Check: other estimators", rows, ESTIMATORS, "nat", by="estimator")


def _note(frame: pl.DataFrame) -> str:
    """NOTE, and the correlation over runs where there is one."""
    rows = frame.filter((pl.col("method") == ALL_RUNS) & (pl.col("split") == "val")).drop_nulls("value")
    found = [
        f"Over the {n} runs at the end, Spearman ρ of accuracy and entropy on val: {value:.2f}"
        + (f" [{low:.2f}, {high:.2f}]" if low is not None else " (no interval)")
        for value, low, high, n in rows.select("value", "ci_low", "ci_high", "n").rows()
    ]
    return "<br>".join([NOTE, "; ".join(found) + "."]) if found else NOTE
