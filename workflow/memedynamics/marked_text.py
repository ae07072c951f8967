"""Plotly's marked-up texts as plain values, for templates that escape what they are given."""

import html
import re
from typing import NamedTuple

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


def pieces(text: str) -> list[Piece]:
    """Plotly's marked-up `text` in pieces; line breaks become spaces, and tags it does not know stay text."""
    found, tag, at = [], "", 0
    for match in STYLE.finditer(text):
        found += [(tag, text[at : match.start()]), *([] if match[2] else [("", " ")])]
        at = match.end()
        if match[2]:
            tag = "" if match[1] else match[2]
    return [Piece(tag, html.unescape(words)) for tag, words in [*found, (tag, text[at:])] if words]


def key(text: str) -> list[Mark]:
    """The key that `figures.finish` writes above the panels."""
    methods = [Mark(colour, plain(name)) for colour, name in METHOD.findall(text)]
    return methods + [Mark("", seed) for seed in plain(METHOD.sub("", text)).split("\xa0\xa0 ") if seed.strip()]


def plain(text: str) -> str:
    """`text` without its tags."""
    return html.unescape(TAGS.sub("", text)).strip()
