"""A figure's drawing, figures/<name>.json, taken apart for the report: a drawing a panel, and the note as text.

Panels keep their height and looks, so that a page can set them side by side or one below the other. What has no axes,
such as the table of claims, is left out: a page has better tables. A figure that is not made of plain panels is one.
"""

import base64
import json
import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from memedynamics import marked_text
from memedynamics.figures import KEY, NOTE, PANEL_TITLE
from memedynamics.marked_text import Mark, Piece
from memedynamics.paper_panels import axis, moved, notes, on_axes

TOP, BOTTOM, LEFT, RIGHT = 34, 52, 58, 12  # px around a panel: its title, its labels
HEIGHT = 450  # px of a figure that does not say
DIGITS, WHOLE = 5, 17  # significant ones of a drawn number, and all
AROUND = ("annotations", "shapes")


class Panel(NamedTuple):
    """One panel: its title as plain text, its share of the row's width, Plotly's data and layout."""

    title: str
    share: float
    data: list[dict]
    layout: dict


class Drawing(NamedTuple):
    """A whole figure: key and note, the template of all panels, and these from left to right, row by row."""

    key: list[Mark]
    note: list[Piece]
    template: dict
    panels: list[Panel]

    def packed(self) -> dict[str, object]:
        """What figures.js takes."""
        return {"template": self.template, "panels": [panel._asdict() for panel in self.panels]}


def read(path: Path) -> Drawing:
    """The drawing at `path`, numbers rounded for the screen."""
    found = _plain(json.loads(path.read_text()))
    data, layout = found["data"], found["layout"]
    template = layout.pop("template", {})
    written = (
        marked_text.key("".join(_texts(found, KEY))),
        [piece for text in _texts(found, NOTE) for piece in marked_text.pieces(text)],
    )
    pairs = sorted({_axes(trace) for trace in on_axes(found)}, key=lambda pair: _place(found, *pair))
    if any(
        not axis(found, name) or "overlaying" in axis(found, name) for pair in pairs or [("x", "y")] for name in pair
    ):
        kept = [each for each in layout.get("annotations", []) if each.get("xref") != "paper"]
        return Drawing(*written, template, [Panel("", 1.0, data, layout | {"annotations": kept})])
    rows = Counter()
    for x, y in pairs:
        rows[_domain(found, y)] += _length(found, x)
    return Drawing(*written, template, [_panel(found, x, y, rows[_domain(found, y)]) for x, y in pairs])


def _panel(drawing: dict, x: str, y: str, row: float) -> Panel:
    """The panel on a pair of axes, in a row of which panels cover the share `row` of the figure's width."""
    layout, margin = drawing["layout"], drawing["layout"].get("margin", {})
    around = {kind: list(moved(layout.get(kind, []), x, y)) for kind in AROUND}
    titles = [each.pop("name") and each for each in around["annotations"] if each.get("name") == PANEL_TITLE]
    inner = layout.get("height", HEIGHT) - margin.get("t", 0) - margin.get("b", 0)
    own = {
        "xaxis": _alone(axis(drawing, x), "y"),
        "yaxis": _alone(axis(drawing, y), "x"),
        "height": round(_length(drawing, y) * inner) + TOP + BOTTOM,
        "margin": {"t": TOP, "b": BOTTOM, "l": LEFT, "r": RIGHT},
    }
    found = [trace for trace in on_axes(drawing) if _axes(trace) == (x, y)]
    title = " ".join(" ".join(marked_text.plain(each["text"]) for each in titles).split())
    return Panel(
        title, _length(drawing, x) / row, [{**each, "xaxis": "x", "yaxis": "y"} for each in found], own | around
    )


def _axes(trace: dict) -> tuple[str, str]:
    return trace.get("xaxis", "x"), trace.get("yaxis", "y")


def _place(drawing: dict, x: str, y: str) -> tuple[float, float]:
    """Rows from above, and in them panels from the left."""
    return -_domain(drawing, y)[1], _domain(drawing, x)[0]


def _domain(drawing: dict, name: str) -> tuple[float, float]:
    return tuple(axis(drawing, name).get("domain", (0, 1)))


def _length(drawing: dict, name: str) -> float:
    low, high = _domain(drawing, name)
    return high - low


def _alone(found: dict, anchor: str) -> dict:
    # Labels of long names need more room than the margin.
    return {**found, "anchor": anchor, "domain": [0, 1], "automargin": True}


def _texts(drawing: dict, name: str) -> list[str]:
    return [note["text"] for note in notes(drawing, name)]


def _plain(value: object, digits: int = DIGITS) -> object:
    """`value` without packed arrays, and with numbers of `digits`: short enough for a page. What the filters compare,
    `customdata`, is left whole.
    """
    if isinstance(value, dict) and "bdata" in value:
        packed = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
        shape = [int(n) for n in str(value.get("shape", -1)).split(",")]
        return _plain(packed.reshape(shape).tolist(), digits)
    if isinstance(value, dict):
        return {key: _plain(each, WHOLE if key == "customdata" else digits) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, digits) for each in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value
