"""A drawing's panels, each as a drawing of its own that fits a column of a paper.

A panel is a pair of axes with the traces, shapes and annotations on it. Sizes are CSS pixels, of which 96 are an inch,
so that 12 are 9 points.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from memedynamics.figures import KEY, PANEL_TITLE
from memedynamics.paper_text import fitted, wrapped

COLUMN, TEXT = 3.25, 7.0  # in: the width of a column, and of the page's text
PX = 96
WIDE = 0.5  # share of the figure's width above which a panel takes the text's width
PLOT = 172  # px: the height of a panel's plot, without title, key and labels
SMALLEST, LARGEST = 9.5, 12.0  # px: 7 and 9 points
LETTER = 0.6  # width of a letter, share of its font's size: a broad one's, as DejaVu Sans
TITLE = re.compile(r"<b>(\w)</b>(?:&nbsp;)?\s*(.*)", re.DOTALL)


class Panel(NamedTuple):
    """One panel's drawing: its letter in the figure, its title as Plotly's text, its width on paper."""

    letter: str
    title: str
    drawing: dict
    width: float  # in


def panels(drawing: dict) -> Iterator[Panel]:
    """The panels of `drawing`, in the order of their letters; those without a title are lettered by their place."""
    pairs = dict.fromkeys((trace.get("xaxis", "x"), trace.get("yaxis", "y")) for trace in on_axes(drawing))
    found = []
    for place, pair in enumerate(pairs):
        letter, title = _title(drawing, *pair) or (chr(ord("a") + place), "")
        found.append((letter, title, pair))
    for letter, title, (x, y) in sorted(found):
        start, end = axis(drawing, x).get("domain", [0, 1])
        width = TEXT if end - start > WIDE else COLUMN
        yield Panel(letter, title, _alone(drawing, x, y, title, round(width * PX)), width)


def on_axes(drawing: dict) -> list[dict]:
    """The traces that lie on a pair of axes; a table, which does not, is typeset instead."""
    return [trace for trace in drawing["data"] if "domain" not in trace and trace.get("type") != "table"]


def axis(drawing: dict, name: str) -> dict:
    """The layout of axis x2, y, …"""
    return drawing["layout"].get(f"{name[0]}axis{name[1:]}", {})


def notes(drawing: dict, name: str) -> list[dict]:
    """The annotations of `drawing` that have this name and are shown."""
    found = drawing["layout"].get("annotations", [])
    return [note for note in found if note.get("name") == name and note.get("visible", True)]


def _title(drawing: dict, x: str, y: str) -> tuple[str, str] | None:
    for note in notes(drawing, PANEL_TITLE):
        if (note.get("xref"), note.get("yref")) == (f"{x} domain", f"{y} domain"):
            return TITLE.match(note["text"]).groups()
    return None


def _alone(drawing: dict, x: str, y: str, title: str, width: int) -> dict:
    layout = drawing["layout"]
    letters = int((width - 16) / (LETTER * LARGEST))
    head = [*_key(drawing, letters + 2), *([f"<b>{line}</b>" for line in wrapped(title, letters)] if title else [])]
    top, below = 10 + 16 * len(head), 40
    made = {
        "template": layout.get("template", {}), "width": width, "height": top + PLOT + below,
        "margin": {"l": 46, "r": 10, "t": top, "b": below, "autoexpand": True},
        "xaxis": _axis(axis(drawing, x), "y"), "yaxis": _axis(axis(drawing, y), "x"),
        "shapes": list(moved(layout.get("shapes", []), x, y)),
    }  # fmt: skip
    inside = moved(layout.get("annotations", []), x, y)
    made["annotations"] = [note for note in inside if note.get("name") != PANEL_TITLE]
    made["annotations"] += [_heading(line, top, place) for place, line in enumerate(head)]
    own = [trace for trace in on_axes(drawing) if (trace.get("xaxis", "x"), trace.get("yaxis", "y")) == (x, y)]
    found = {"data": [{**trace, "xaxis": "x", "yaxis": "y"} for trace in own], "layout": made}
    made["xaxis"] |= _ticks(made["xaxis"], width - 60)
    return fitted(found, SMALLEST, LARGEST)


def _heading(line: str, top: int, place: int) -> dict:
    where = {"xref": "paper", "yref": "paper", "x": 0, "y": 1, "xanchor": "left", "yanchor": "top", "align": "left"}
    shift = {"xshift": -40, "yshift": top - 5 - 16 * place}
    return {**where, **shift, "text": line, "showarrow": False, "font": {"size": LARGEST}}


def _key(drawing: dict, letters: int) -> list[str]:
    """The key of methods and seeds, in lines of at most `letters` letters; none where the figure shows none."""
    return [line for note in notes(drawing, KEY) for line in wrapped(note["text"], letters, between="&nbsp;&nbsp; ")]


def _axis(found: dict, anchor: str) -> dict:
    kept = {key: value for key, value in found.items() if key not in ("domain", "matches", "position")}
    return {**kept, "anchor": anchor, "domain": [0, 1], "automargin": True}


def moved(items: Sequence[dict], x: str, y: str) -> Iterator[dict]:
    """The shapes or annotations on a pair of axes, on the first pair."""
    for item in items:
        refs = [re.fullmatch(r"([xy]\d*)( domain)?", item.get(key, "")) for key in ("xref", "yref")]
        if all(refs) and {refs[0][1], refs[1][1]} == {x, y}:
            yield {**item, "xref": f"x{refs[0][2] or ''}", "yref": f"y{refs[1][2] or ''}"}


def _ticks(found: dict, width: float) -> dict:
    """Smaller labels, or slanting ones, where an axis has more than have room beside each other."""
    texts = [re.sub(r"<(?!br)[^>]*>", "", text) for text in found.get("ticktext", [])]
    if not texts:
        return {}
    longest = max(len(line) for text in texts for line in text.split("<br>"))
    room = width / len(texts) / (LETTER * max(longest, 1))
    if room >= SMALLEST:
        return {"tickfont": {**found.get("tickfont", {}), "size": min(room, 11)}, "tickangle": 0}
    one_line = [text.replace("<br>", " ") for text in found["ticktext"]]
    return {"tickfont": {**found.get("tickfont", {}), "size": SMALLEST}, "tickangle": -50, "ticktext": one_line}
