"""Figure of the analysis `attention`: which method leans on the picture, and which answers stay right under noise."""

from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from memedynamics import figures, panels
from memedynamics.gather import BASE
from memedynamics.perturbations import BLANK, BLUR, CLEAN, JPEG, NATURAL, NOISE, OTHER

NOTE = (
    "Attention of the prompt’s last token, mean over heads and (but for c) layers. Bars: 95 % cluster bootstrap over "
    "prompts (equal captions are one cluster), paired in a, b and h.<br>"
    "b–i: end of training. Random update: of the same norm in every module, in random directions; what it does too is "
    "not what training taught.<br>"
    "e: distance of each policy’s rows from its own on the clean picture. σ: Gaussian noise, in 1/255. Swap: the "
    "picture of a meme with the same caption and<br>"
    "the other label, so that the right answer turns; other: of just any meme, where the right answer is unknown. "
    "g–i: every "
    "policy answers each picture anew,<br>"
    "greedily; its decision is the likelier of Yes and No at that answer, compared in h and i with its own on the "
    "clean picture."
)
SEGMENTS = [
    ("image", "image"),
    ("caption", "caption"),
    ("question", "question"),
    ("system", "system"),
    ("header", "header"),
]
SPLITS = {"train": 0, "val": 1, "test": 2}
POLICIES = [("trained", "trained"), ("random", "random<br>update")]
NAMES = {CLEAN: "clean", BLUR: "blur", JPEG: "JPEG", BLANK: "blank", NATURAL: "swap", OTHER: "other"}


def figure_attention(frame: pl.DataFrame, notes: Sequence[str] = ()) -> go.Figure:
    """The figure of `frame`, a table of the analysis `attention`; `notes` on the study close its caption."""
    third = [{"colspan": 2}, None] * 3
    figure = make_subplots(rows=3, cols=6, specs=[third] * 3, vertical_spacing=0.1, horizontal_spacing=0.085)
    own = frame.filter(pl.col("versus").is_null())
    home = _home(own)
    last = own.filter((pl.col("fraction") == pl.col("fraction").max()) | (pl.col("method") == BASE))
    here = last.filter(home)
    against = frame.filter((pl.col("versus") == BASE) & (pl.col("perturbation") == CLEAN) & home)
    _along(figure, against)
    _control(figure, against.filter(pl.col("fraction") == pl.col("fraction").max()))
    _layers(figure, here)
    _segments(figure, here)
    _moved(figure, here)
    _places(figure, last)
    _decisions(figure, here.filter(pl.col("policy") == "trained"))
    title = "Which method looks at the picture, and whose answers survive noise on it"
    return figures.finish(figure, frame, title, NOTE, 3, notes)


def _home(own: pl.DataFrame) -> pl.Expr:
    """The data shown but in f: val where it was looked at, the first dataset's first split else."""
    found = own.select("dataset", "split").unique().sort("split", "dataset").rows()
    dataset, split = next((place for place in found if place[1] == "val"), found[0])
    return (pl.col("dataset") == dataset) & (pl.col("split") == split)


def _looks(rows: pl.DataFrame, statistic: str, policy: str = "trained") -> pl.DataFrame:
    chosen = (pl.col("statistic") == statistic) & (pl.col("head") == "mean") & pl.col("layer").is_null()
    return rows.filter(chosen & (pl.col("policy") == policy))


def _along(figure: go.Figure, against: pl.DataFrame) -> None:
    panels.title(figure, 1, 1, "a", "Attention on the picture")
    panels.curves(figure, 1, 1, _looks(against, "image_share_difference"), "share − base’s", 0.0)
    figure.update_yaxes(title_standoff=0, row=1, col=1)


def _control(figure: go.Figure, against: pl.DataFrame) -> None:
    panels.title(figure, 1, 3, "b", "The same beside the control")
    rows = pl.concat([_looks(against, "image_share_difference", policy) for policy, _ in POLICIES])
    panels.groups(figure, 1, 3, rows, "policy", POLICIES, "share − base’s")
    figure.add_hline(y=0, line={"color": figures.COLOURS[BASE], "width": 1.5}, row=1, col=3)


def _layers(figure: go.Figure, here: pl.DataFrame) -> None:
    panels.title(figure, 1, 5, "c", "By layer")
    chosen = (pl.col("statistic") == "image_share") & (pl.col("head") == "mean") & (pl.col("policy") == "trained")
    rows = here.filter(chosen & pl.col("layer").is_not_null()).sort("layer")
    palette = figures.colours(rows["method"].to_list())
    _band(figure, rows.filter(pl.col("method") == BASE))
    for method, seed, place in figures.runs(rows):
        run = rows.filter((pl.col("method") == method) & (pl.col("seed") == seed))
        line = {"color": palette[method], "width": 1.5, "dash": figures.DASHES[place % len(figures.DASHES)]}
        style = {
            "mode": "lines",
            "line": line,
            "showlegend": False,
            "hovertext": panels.hover(run),
            "hoverinfo": "text",
            **panels.whose(run),
        }
        figure.add_scatter(x=run["layer"], y=run["value"], **style, row=1, col=5)
    few = rows["layer"].n_unique() <= 8
    ends = [-0.2, rows["layer"].max() + 0.2] if len(rows) else None
    figure.update_xaxes(title_text="layer", dtick=1 if few else None, range=ends, showgrid=False, row=1, col=5)
    figure.update_yaxes(title_text="share", rangemode="tozero", row=1, col=5)


def _band(figure: go.Figure, base: pl.DataFrame) -> None:
    x, colour = base["layer"].to_list(), figures.COLOURS[BASE]
    ends = base["ci_low"].to_list() + base["ci_high"].to_list()[::-1]
    common = {"showlegend": False, "hoverinfo": "skip", "mode": "lines"}
    band = {"fill": "toself", "fillcolor": figures.faded(colour, 0.15), "line_width": 0}
    figure.add_scatter(x=x + x[::-1], y=ends, **band, **common, row=1, col=5)
    figure.add_scatter(x=x, y=base["value"], line={"color": colour, "width": 2}, **common, row=1, col=5)


def _segments(figure: go.Figure, here: pl.DataFrame) -> None:
    panels.title(figure, 2, 1, "d", "Attention by segment (adds up)")
    clean = here.filter(pl.col("perturbation") == CLEAN)
    found = [_looks(clean, f"{s}_share").with_columns(segment=pl.lit(s)) for s, _ in SEGMENTS]
    shown = pl.concat(found).filter(pl.col("value").max().over("segment") > 0)
    panels.groups(figure, 2, 1, shown, "segment", SEGMENTS, "share")
    figure.update_yaxes(rangemode="tozero", row=2, col=1)


def _moved(figure: go.Figure, here: pl.DataFrame) -> None:
    panels.title(figure, 2, 3, "e", "Attention moved by the picture")
    rows = _looks(here, "total_variation").filter(pl.col("perturbation") != CLEAN)
    panels.groups(figure, 2, 3, rows, "perturbation", _perturbations(rows), "total variation")
    figure.update_xaxes(tickfont={"size": 10}, tickangle=0, row=2, col=3)
    figure.update_yaxes(rangemode="tozero", row=2, col=3)


def _places(figure: go.Figure, last: pl.DataFrame) -> None:
    panels.title(figure, 2, 5, "f", "Attention on the picture, by data")
    rows = _looks(last, "image_share").filter(pl.col("perturbation") == CLEAN)
    rows = rows.with_columns(place=pl.concat_str("dataset", "split", separator="/"))
    where = rows.select("dataset", "split", "place").unique()
    home = where.filter(pl.col("split") == "train")["dataset"].to_list() or where["dataset"].sort().to_list()[:1]
    found = where.sort(~pl.col("dataset").is_in(home), "dataset", pl.col("split").replace_strict(SPLITS)).rows()
    names = [(place, split if dataset in home else dataset.replace("_", "<br>", 1)) for dataset, split, place in found]
    panels.groups(figure, 2, 5, rows, "place", names, "share")


def _decisions(figure: go.Figure, here: pl.DataFrame) -> None:
    # With just any meme's picture the right answer is unknown.
    known = here.filter((pl.col("after") == "redrawn") & (pl.col("perturbation") != OTHER))
    changed = here.filter((pl.col("after") == "redrawn") & (pl.col("perturbation") != CLEAN))
    _deciding(figure, 1, known, "decision_accuracy", "g", "Right answers", "share of prompts")
    against = known.filter(pl.col("perturbation") != CLEAN)
    _deciding(figure, 3, against, "accuracy_change", "h", "Right answers, change", "share − clean’s")
    figure.add_hline(y=0, line={"color": figures.COLOURS[BASE], "width": 1, "dash": "dot"}, row=3, col=3)
    _deciding(figure, 5, changed, "flip_rate", "i", "Answers flipped", "share of prompts")
    for col in (1, 5):
        figure.update_yaxes(rangemode="tozero", row=3, col=col)


def _deciding(
    figure: go.Figure, col: int, made: pl.DataFrame, statistic: str, letter: str, text: str, unit: str
) -> None:
    panels.title(figure, 3, col, letter, text)
    rows = made.filter(pl.col("statistic") == statistic)
    panels.groups(figure, 3, col, rows, "perturbation", _perturbations(rows), unit)


def _perturbations(rows: pl.DataFrame) -> list[tuple[str, str]]:
    """The perturbations in `rows` with their labels: clean, noise by σ, then the others."""
    found = set(rows["perturbation"].to_list())
    noise = sorted((int(name.removeprefix(NOISE)), name) for name in found if name.startswith(NOISE))
    order = [(CLEAN, "clean"), *((name, f"σ {sigma}") for sigma, name in noise), *list(NAMES.items())[1:]]
    return [(name, text) for name, text in order if name in found]
