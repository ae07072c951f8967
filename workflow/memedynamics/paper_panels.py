"""A drawing's panels, each as a drawing of its own that fits a column of a paper.

A panel is a pair of axes with the traces, shapes and annotations on it. Sizes are CSS pixels, of which 96 are an inch,
so that 12 are 9 points.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from memedynamics.figures import KEY, PANEL_TITLE, PX
from memedynamics.plotly_text import fitted, seen, wrapped

COLUMN, TEXT = 3.25, 7.0  # in: the width of a column, and of the page's text
WIDE = 0.5  # share of the figure's width above which a panel takes the text's width
PLOT, TALL = 172, 300  # px: the height of a panel's plot without title, key and labels; higher ones keep their own
BELOW = 40  # px: labels and title of the x axis
SMALLEST, LARGEST = 9.5, 12.0  # px: 7 and 9 points
SLANT = -50  # degrees: labels that have no room beside each other
KEY_SIZE, LINE = 10.0, 16  # px: the font of the key of methods and seeds; the height of a line above the plot
LETTER = 0.58  # width of a letter, share of its font's size: a broad one's, as DejaVu Sans
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
    key = [f'<span style="font-size:{KEY_SIZE}px">{line}</span>' for line in _key(drawing, _letters(width, KEY_SIZE))]
    head = [*key, *(f"<b>{line}</b>" for line in wrapped(title, _letters(width, LARGEST)) if title)]
    own = axis(drawing, x), axis(drawing, y)
    ticks, more = _ticks(own[0], width - 60)
    plot, top, below = _height(drawing, own[1]), 14 + LINE * len(head), BELOW + more
    inside = moved(layout.get("annotations", []), x, y)
    made = {
        "template": layout.get("template", {}), "width": width, "height": top + plot + below, "title": _heading(head),
        "margin": {"l": 46, "r": 10, "t": top, "b": below},
        "xaxis": {**_axis(own[0], "y"), **ticks}, "yaxis": {**_axis(own[1], "x"), **_beside(own[1], plot)},
        "shapes": list(moved(layout.get("shapes", []), x, y)),
        "annotations": [note for note in inside if note.get("name") != PANEL_TITLE],
    }  # fmt: skip
    traces = [trace for trace in on_axes(drawing) if (trace.get("xaxis", "x"), trace.get("yaxis", "y")) == (x, y)]
    found = {"data": [{**trace, "xaxis": "x", "yaxis": "y"} for trace in traces], "layout": made}
    return fitted(found, SMALLEST, LARGEST)


def _height(drawing: dict, y: dict) -> float:
    """The height of a panel's plot: the usual one, or its own where it spans rows of the figure."""
    layout, (start, end) = drawing["layout"], y.get("domain", [0, 1])
    margin = {"t": 0, "b": 0, **layout.get("margin", {})}
    own = (end - start) * (layout["height"] - margin["t"] - margin["b"])
    return own if own > TALL else PLOT


def _beside(y: dict, plot: float) -> dict:
    """A y axis' title small enough, or in lines enough, for the plot's height."""
    title = y.get("title", {})
    letters = int(plot / (LETTER * SMALLEST))
    lines = wrapped(title.get("text", ""), letters)
    longest = max(len(seen(line)) for line in lines)
    size = min(LARGEST, plot / (LETTER * max(longest, 1)))
    return {"title": {**title, "text": "<br>".join(lines), "font": {**title.get("font", {}), "size": size}}}


def _letters(width: float, size: float) -> int:
    """How many letters of `size` px have room in a panel's width."""
    return int((width - 12) / (LETTER * size))


def _heading(lines: Sequence[str]) -> dict:
    """Key and title, whose place is the drawing's own corner, however wide the labels of the axis are."""
    corner = {"x": 0, "xref": "container", "xanchor": "left", "y": 1, "yref": "container", "yanchor": "top"}
    return {**corner, "text": "<br>".join(lines), "pad": {"l": 6, "t": 15}, "font": {"size": LARGEST}}


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


def _ticks(found: dict, width: float) -> tuple[dict, float]:
    """Smaller labels, or slanting ones, where an axis has more than have room beside each other; px they take more."""
    texts = [re.sub(r"<(?!br)[^>]*>", "", text) for text in found.get("ticktext", [])]
    if not texts:
        return {}, 0
    longest = max(len(line) for text in texts for line in text.split("<br>"))
    room = width / len(texts) / (LETTER * max(longest, 1))
    if room >= SMALLEST:
        return {"tickfont": {**found.get("tickfont", {}), "size": min(room, 11)}, "tickangle": 0}, 0
    one_line = [text.replace("<br>", " ") for text in found["ticktext"]]
    look = {"tickfont": {**found.get("tickfont", {}), "size": SMALLEST}, "tickangle": SLANT, "ticktext": one_line}
    return look, 0.77 * LETTER * SMALLEST * max(len(text.replace("<br>", " ")) for text in texts) - BELOW / 2
