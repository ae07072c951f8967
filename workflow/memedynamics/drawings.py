"""A figure's drawing, figures/<name>.json, taken apart for the report: a drawing a panel, and the note as text.

Panels keep their height and looks, so that a page can set them side by side or one below the other. What has no axes,
such as the table of claims, is left out: a page has better tables. A figure that is not made of plain panels is one.
"""

import base64
import html
import json
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

TOP, BOTTOM, LEFT, RIGHT = 34, 52, 58, 12  # px around a panel: its title, its labels
DIGITS = 5  # significant ones of a drawn number
AROUND = ("annotations", "shapes")
STYLE = re.compile(r"<(/?)(b|i|sub|sup)>|<br>")
METHOD = re.compile(r'<span style="color:(#\w{6})">(.*?)</span>')
TAGS = re.compile(r"<[^>]*>")


class Piece(NamedTuple):
    """Text of a note, and the tag it stands in: b, i, sub, sup or none."""

    tag: str
    text: str


class Mark(NamedTuple):
    """An entry of a figure's key: a method's colour and name; seeds and their signs have no colour."""

    colour: str
    text: str


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
    texts = {each.get("name"): each["text"] for each in layout.get("annotations", []) if each.get("xref") == "paper"}
    written = _key(texts.get("key", "")), pieces(texts.get("note", ""))
    axes = [key.removeprefix("xaxis") for key in layout if re.fullmatch(r"xaxis\d*", key)]
    if not axes or any("overlaying" in axis for axis in layout.values() if isinstance(axis, dict)):
        kept = [each for each in layout.get("annotations", []) if each.get("xref") != "paper"]
        return Drawing(*written, template, [Panel("", 1.0, data, layout | {"annotations": kept})])
    return Drawing(*written, template, [_panel(data, layout, axis, _share(layout, axis, axes)) for axis in axes])


def pieces(text: str) -> list[Piece]:
    """Plotly's marked-up `text` in pieces; line breaks become spaces, and tags it does not know stay text."""
    found, tag, at = [], "", 0
    for match in STYLE.finditer(text):
        found += [(tag, text[at : match.start()]), *([] if match[2] else [("", " ")])]
        at = match.end()
        if match[2]:
            tag = "" if match[1] else match[2]
    return [Piece(tag, html.unescape(words)) for tag, words in [*found, (tag, text[at:])] if words]


def _key(text: str) -> list[Mark]:
    """The key that `figures.finish` writes above the panels."""
    methods = [Mark(colour, _text(name)) for colour, name in METHOD.findall(text)]
    return methods + [Mark("", seed) for seed in _text(METHOD.sub("", text)).split("\xa0\xa0 ") if seed.strip()]


def _panel(data: list[dict], layout: dict, axis: str, share: float) -> Panel:
    x, y = f"x{axis}", _other(layout, axis)
    around = {kind: [_moved(each) for each in layout.get(kind, []) if _of(each, x, y)] for kind in AROUND}
    margin = layout.get("margin", {})
    inner = layout.get("height", 450) - margin.get("t", 100) - margin.get("b", 80)
    own = {
        "xaxis": _alone(layout[f"xaxis{axis}"], "y"),
        "yaxis": _alone(_y(layout, axis), "x"),
        "height": round(_length(_y(layout, axis)) * inner) + TOP + BOTTOM,
        "margin": {"t": TOP, "b": BOTTOM, "l": LEFT, "r": RIGHT},
    }
    traces = [{**trace, "xaxis": "x", "yaxis": "y"} for trace in data if trace.get("xaxis") == x]
    title = " ".join(next((_text(each["text"]) for each in around["annotations"] if _is_title(each)), "").split())
    return Panel(title, share, traces, own | around)


def _other(layout: dict, axis: str) -> str:
    """The y axis, as traces name it, that crosses x axis number `axis`."""
    return layout[f"xaxis{axis}"].get("anchor", f"y{axis}")


def _y(layout: dict, axis: str) -> dict:
    return layout["yaxis" + _other(layout, axis).removeprefix("y")]


def _share(layout: dict, axis: str, axes: list[str]) -> float:
    row = [other for other in axes if _y(layout, other).get("domain") == _y(layout, axis).get("domain")]
    return _length(layout[f"xaxis{axis}"]) / sum(_length(layout[f"xaxis{other}"]) for other in row)


def _length(axis: dict) -> float:
    low, high = axis.get("domain", (0, 1))
    return high - low


def _alone(axis: dict, anchor: str) -> dict:
    # Labels of long names need more room than the margin.
    return {**axis, "anchor": anchor, "domain": [0, 1], "automargin": True}


def _of(each: dict, x: str, y: str) -> bool:
    """Whether an annotation or a shape belongs to the panel of these axes."""
    return [str(each.get(ref)).removesuffix(" domain") for ref in ("xref", "yref")] == [x, y]


def _moved(each: dict) -> dict:
    return {**each, **{ref: re.sub(r"\d+", "", each[ref]) for ref in ("xref", "yref")}}


def _is_title(annotation: dict) -> bool:
    return annotation["xref"] == "x domain" and annotation.get("yanchor") == "bottom"


def _text(marked: str) -> str:
    return html.unescape(TAGS.sub("", marked)).strip()


def _plain(value: object) -> object:
    """`value` without packed arrays, and with numbers short enough for a page."""
    if isinstance(value, dict) and "bdata" in value:
        packed = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
        shape = [int(n) for n in str(value.get("shape", -1)).split(",")]
        return _plain(packed.reshape(shape).tolist())
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
