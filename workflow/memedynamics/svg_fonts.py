"""Fonts inside an SVG: the text stays text, and looks the same where the font is not installed.

Each weight of the font is a rule @font-face with the letters that the file has in it, and no others.
"""

import base64
import io
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from fontTools import subset
from fontTools.ttLib import TTFont

from memedynamics.figures import FONT

REGULAR, BOLD = 400, 700  # CSS font-weight
WEIGHT = re.compile(r"font-weight:\s*(\w+)")
NAMED = f"font-family: {FONT.partition(',')[0]}"  # how Plotly begins the fonts of a text


class Face(NamedTuple):
    """One weight of a font: its family's name, and a font file."""

    weight: int
    family: str
    font: bytes


def installed(weight: int, family: str, postscript: str) -> Face | None:
    """The face whose font has this PostScript name, where fontconfig's fc-list knows its file; else None."""
    command = ["fc-list", "--format", "%{file}\t%{index}\n", f":postscriptname={postscript}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    if not found:
        return None
    file, index = sorted(found.splitlines())[0].split("\t")
    # The upper half of an index is the named instance of a variable font.
    with TTFont(Path(file), fontNumber=int(index) & 0xFFFF, recalcTimestamp=False) as font:
        return Face(weight, family, _bytes(font))


def cut(face: Face, letters: Iterable[str], flavor: str | None = None) -> Face:
    """`face` with the glyphs of `letters` alone; those that the font lacks are left out. Equal input, equal bytes."""
    options = subset.Options(flavor=flavor, hinting=False, notdef_outline=True)
    options.drop_tables += ["FFTM"]  # FontForge's dates, of which the log would speak
    with TTFont(io.BytesIO(face.font), recalcTimestamp=False) as font:
        cutter = subset.Subsetter(options)
        cutter.populate(text="".join(sorted(letters)))
        cutter.subset(font)
        font.flavor = flavor
        return face._replace(font=_bytes(font))


def _bytes(font: TTFont) -> bytes:
    written = io.BytesIO()
    font.save(written)
    return written.getvalue()


def letters(svg: str) -> dict[int, set[str]]:
    """The letters of the text in `svg` by weight."""
    found: dict[int, set[str]] = {REGULAR: set(), BOLD: set()}

    def walk(element: ElementTree.Element, weight: int) -> None:
        if element.tag.endswith("style"):
            return
        if said := WEIGHT.search(element.get("style", "")):
            weight = BOLD if said[1] in ("bold", "bolder", "600", "700", "800", "900") else REGULAR
        found[weight].update(element.text or "")
        for child in element:
            walk(child, weight)
            found[weight].update(child.tail or "")

    walk(ElementTree.fromstring(svg), REGULAR)
    return found


def embedded(svg: str, faces: Sequence[Face]) -> str:
    """`svg` with those of `faces` whose weight it uses inside, which its text then names first."""
    own = letters(svg)
    used = [cut(face, own[face.weight], "woff") for face in faces if own[face.weight]]
    if not used:
        return svg
    named = svg.replace(NAMED, f"font-family: '{used[0].family}', {NAMED.removeprefix('font-family: ')}")
    return re.sub(
        r"(<svg[^>]*>)", lambda start: f"{start[0]}<style>{''.join(map(_rule, used))}</style>", named, count=1
    )


def _rule(face: Face) -> str:
    address = f"data:font/woff;base64,{base64.b64encode(face.font).decode()}"
    return f"@font-face{{font-family:'{face.family}';font-weight:{face.weight};src:url({address}) format('woff')}}"
