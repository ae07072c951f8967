"""The house style: one colour a method, one dash and marker a seed, the base grey; and how a figure is saved.

Colours are Okabe & Ito's (2008), told apart with any colour vision. Equal tables give equal bytes: ids are fixed.
What stands outside the panels has a name, so that the report and the paper can write it themselves.
"""

import json
import textwrap
from collections.abc import Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go
import polars as pl

from memedynamics import checksums
from memedynamics.gather import BASE

COLOURS = {"base": "#6b6b6b", "sft": "#0072B2", "dpo": "#D55E00", "grpo": "#009E73", "rft": "#56B4E9", "em": "#CC79A7"}
FURTHER = ("#E69F00", "#8C510A", "#5E3C99", "#4D4D4D", "#B2ABD2", "#7FBC41", "#DE77AE")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
MARKERS = ("circle", "diamond-open", "square", "triangle-up-open", "x-thin-open")
SIGNS = ("●", "◇", "■", "△", "×")  # the markers, in text
NAMES = {
    "sft": "SFT", "dpo": "DPO", "grpo": "GRPO", "base": "base", "em": "EM", "rft": "RFT", "kto": "KTO", "rloo": "RLOO",
    "dr_grpo": "Dr. GRPO", "dapo": "DAPO", "gspo": "GSPO", "cispo": "CISPO", "rlhf": "RLHF", "rlaif": "RLAIF",
}  # fmt: skip
FONT = "Helvetica, Arial, Liberation Sans, sans-serif"
WIDTH, PANEL = 1000, 310  # px: a figure's width, and a row of panels with its titles and labels
PX = 96  # px an inch, on paper
HEADING, KEY, NOTE, PANEL_TITLE = "figure title", "figure key", "figure note", "panel title"  # annotations' names
LINE, MANY = 165, 6  # characters that fit into the width, and how many of a study's notes are written out

_axis = {
    "showline": True, "linecolor": "#333333", "linewidth": 1, "ticks": "outside", "tickcolor": "#333333", "ticklen": 4,
    "gridcolor": "#ececec", "zeroline": False, "exponentformat": "power",
    "title": {"standoff": 6, "font": {"size": 12}},
}  # fmt: skip
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 11, "color": "#222222"},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "xaxis": _axis,
        "yaxis": _axis,
        "hoverlabel": {"font": {"family": FONT}},
    }
)


def colours(methods: Sequence[str]) -> dict[str, str]:
    """Colour of each method: fixed for the known ones, in alphabetical order from the rest of the palette else."""
    unknown = sorted(set(methods) - set(COLOURS))
    return COLOURS | {name: FURTHER[i % len(FURTHER)] for i, name in enumerate(unknown)}


def ordered(methods: Sequence[str]) -> list[str]:
    """Methods in the order every figure shows them: base, the known ones, then alphabetical."""
    known = list(COLOURS)
    return sorted(set(methods), key=lambda name: (known.index(name) if name in known else len(known), name))


def name(method: str) -> str:
    """How a method is written in a figure."""
    return NAMES.get(method, method)


def runs(frame: pl.DataFrame) -> list[tuple[str, int, int]]:
    """Method, seed and the seed's place among its method's seeds, of every run in `frame`, in drawing order."""
    found = frame.filter(pl.col("method") != BASE).select("method", "seed").unique().sort("method", "seed").rows()
    seeds = {method: [seed for name, seed in found if name == method] for method, _ in found}
    return [(method, seed, place) for method in ordered(seeds) for place, seed in enumerate(seeds[method])]


def faded(colour: str, opacity: float) -> str:
    """`colour` (#rrggbb) as rgba with `opacity`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def finish(
    figure: go.Figure,
    frame: pl.DataFrame,
    title: str,
    note: str,
    rows: int,
    notes: Sequence[str] = (),
    reference: Sequence[str] = (BASE,),
) -> go.Figure:
    """Template, size, title, the key of methods and seeds above the panels, and the note below them.

    `notes` are the study's own, on methods that are not matched; they close the note. `reference` stands in the key
    behind the methods.
    """
    notes = [note, *_missing(frame), *_unmatched(frame), *_written(notes)]
    below = 62 + 16 * sum(text.count("<br>") + 1 for text in notes)
    height = 84 + rows * PANEL - 60 + below
    figure.update_layout(template=TEMPLATE, width=WIDTH, height=height, margin={"l": 62, "r": 14, "t": 98, "b": below})
    written = {"showarrow": False, "xref": "paper", "yref": "paper", "x": 0, "align": "left", "xanchor": "left"}
    written |= {"xshift": -48, "yanchor": "top"}
    for label, text, y, shift, font in (
        (HEADING, f"<b>{title}</b>", 1, 86, {"size": 16}),
        (KEY, _key(frame, reference), 1, 58, {"size": 13}),
        (NOTE, "<br>".join(notes), 0, -54, {"color": "#555555"}),
    ):
        figure.add_annotation(**written, name=label, text=text, y=y, yshift=shift, font=font)
    for place, trace in enumerate(figure.data):
        trace.uid = str(place)
    return figure


def _key(frame: pl.DataFrame, reference: Sequence[str]) -> str:
    found, palette = runs(frame), colours(frame["method"].to_list())
    drawn = [*ordered([method for method, _, _ in found]), *reference]
    methods = [f'<span style="color:{palette[method]}"><b>{name(method)}</b></span>' for method in drawn]
    # Seeds of the methods that were trained here: one trained elsewhere has none, and stands as seed 0.
    many = max((place for _, _, place in found), default=0)
    trained = [method for method, _, place in found if place == many][:1]
    places = {place: seed for method, seed, place in found if method in trained}
    seeds = [f"{SIGNS[place % len(SIGNS)]} seed {seed}" for place, seed in sorted(places.items())]
    return "&nbsp;&nbsp; ".join([*methods, *(seeds if len(seeds) > 1 else [])])


def _missing(frame: pl.DataFrame) -> list[str]:
    """Which runs lack the figure's measures, and why, one line a reason."""
    if "missing" not in frame.columns:
        return []
    found = frame.drop_nulls("missing").group_by("missing", maintain_order=True).agg(pl.col("method").unique())
    lines = [f"{', '.join(map(name, ordered(methods)))}: {reason}" for reason, methods in found.rows()]
    return _written([f"not computed for {line}" for line in lines])


def _unmatched(frame: pl.DataFrame) -> list[str]:
    foreign = frame.filter(pl.col("step").is_null() & (pl.col("fraction") > 0))["method"].to_list()
    names = ", ".join(name(method) for method in ordered(foreign))
    return [f"Merged, or trained elsewhere, so not matched with the others: {names}."] if foreign else []


def _written(notes: Sequence[str]) -> list[str]:
    """A study's `notes`, which hold users' own words, as sentences of at most two lines of the figure's width."""
    left = len(notes) - MANY
    sentences = [f"{note[:1].upper()}{note[1:]}." for note in notes[:MANY]]
    sentences += [f"And {left} more such differences, which Snakemake lists when it starts."] if left > 0 else []
    wrapped = [textwrap.wrap(text, LINE, max_lines=2, placeholder=" …") for text in sentences]
    return ["<br>".join(escape(line, quote=False) for line in lines) for lines in wrapped]


def save(figure: go.Figure, path: Path, identity: str) -> None:
    """Write `figure` as a page of its own that needs no network, and beside it the drawing alone, as Plotly's JSON with
    a checksum.

    The report and the paper take the drawing (module `printing` for pdf, svg and png).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    figure.write_html(partial, include_plotlyjs=True, div_id=identity, config={"displaylogo": False})
    partial.replace(path)
    checksums.write_json(path.with_suffix(".json"), json.loads(figure.to_json()))
