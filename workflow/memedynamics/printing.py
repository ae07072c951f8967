"""Drawings as pdf, svg and png, through one Chromium. Equal drawings give equal bytes.

Plotly draws each once, as svg, of which the browser prints the others. Nothing is fetched: Plotly's own library is that
of the package, and formulas' MathJax, which no figure uses, stays out.
"""

import asyncio
import logging
import os
import re
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import kaleido
from choreographer.browsers.chromium import Chromium
from kaleido.errors import BrowserFailedError

from memedynamics import svg_fonts, svg_printing
from memedynamics.errors import InputError
from memedynamics.figures import PX
from memedynamics.svg_fonts import Face

LONGEST = 300  # s a drawing may take
DPI = 300  # dots an inch of a png
FORMATS = ("pdf", "svg", "png")
INSTALL = (
    "figures on paper need Chromium or Chrome: install Debian's package chromium (apt-get install chromium), or run "
    "plotly_get_chrome, or set BROWSER_PATH to a browser's program; HTML figures need none"
)
UNEMBEDDED = "the font's file is not found (fc-list of Debian's package fontconfig names it): svg files hold no font"

log = logging.getLogger(__name__)


class Print(NamedTuple):
    """A drawing (Plotly's data and layout) to print `width` inches wide, as `path` with the suffix of each format."""

    drawing: dict
    path: Path
    width: float


def print_drawings(prints: Sequence[Print]) -> None:
    """Print all of `prints` in all FORMATS with one browser; a file that exists is whole.

    Raises InputError where no browser is found or it does not start.
    """
    browser = _browser()
    # When a browser is closed, the word for it is reported as a broken message.
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)
    try:
        # In a thread of its own, since the caller's may have an event loop that runs.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _print(prints, browser)).result()
    except BrowserFailedError as error:
        raise InputError(f"{browser} does not start; {INSTALL}") from error


async def _print(prints: Sequence[Print], path: str) -> None:
    async with kaleido.Kaleido(n=1, timeout=LONGEST, mathjax=False, path=path) as browser:
        drawn = await asyncio.gather(*(browser.calc_fig(_named(p.drawing), _size(p)) for p in prints))
        svgs = [_unmarked(svg).decode() for svg in drawn]
        tab = await browser.create_tab("about:blank")
        faces = _cut(await svg_printing.faces(tab), svgs)
        for each, svg in zip(prints, svgs, strict=True):
            await svg_printing.show(tab, svg, each.path.name)
            size = _paper(each)
            _write(each.path, "svg", svg_fonts.embedded(svg, faces).encode())
            _write(each.path, "pdf", _undated(await svg_printing.pdf(tab, *size)))
            _write(each.path, "png", _sized(await svg_printing.png(tab, *size, DPI)))


def _cut(found: Sequence[Face | None], svgs: Sequence[str]) -> list[Face]:
    """The faces with what `svgs` have of letters: a whole font takes long to cut, and each file has its own cut."""
    if not all(found):
        log.warning(UNEMBEDDED)
        return []
    letters = [svg_fonts.letters(svg) for svg in svgs]
    return [svg_fonts.cut(face, set().union(*(own[face.weight] for own in letters))) for face in found]


def _write(path: Path, suffix: str, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial.{suffix}")
    partial.write_bytes(data)
    partial.replace(path.with_name(f"{path.name}.{suffix}"))


def _browser() -> str:
    found = Chromium.find_browser(skip_local=False)
    if not found or not os.access(found, os.X_OK):
        raise InputError(f"no browser at {found}; {INSTALL}" if found else INSTALL)
    return found


def _named(drawing: dict) -> dict:
    """`drawing` with names for its traces, which Plotly would draw at random."""
    return {**drawing, "data": [{**trace, "uid": str(place)} for place, trace in enumerate(drawing["data"])]}


def _paper(each: Print) -> tuple[float, float]:
    """Width and height on paper in CSS px."""
    layout, width = each.drawing["layout"], each.width * PX
    return width, layout["height"] * width / layout["width"]


def _size(each: Print) -> dict[str, object]:
    """The drawing's own size in pixels, scaled to the paper's."""
    layout = each.drawing["layout"]
    scale = each.width * PX / layout["width"]
    return {"format": "svg", "width": layout["width"], "height": layout["height"], "scale": scale}


def _undated(data: bytes) -> bytes:
    """A pdf without the time that Chromium stamps."""
    return re.sub(rb"D:\d{14}", b"D:20000101000000", data)


def _unmarked(data: bytes) -> bytes:
    """An svg without the six random digits in all ids of a drawing."""
    mark = re.search(rb'id="defs-([0-9a-f]{6})"', data)
    return data.replace(mark[1], b"0" * 6) if mark else data


def _sized(data: bytes) -> bytes:
    """A png that says how many dots an inch has, so that programs place it at its width."""
    body = b"pHYs" + struct.pack(">IIB", *[round(DPI / 0.0254)] * 2, 1)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    head = 33  # signature and header come first
    return data[:head] + chunk + data[head:]
