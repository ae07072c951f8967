"""Drawings as pdf, svg and png, through one Chromium. Equal drawings give equal bytes.

Nothing is fetched: Plotly's own library is that of the package, and formulas' MathJax, which no figure uses, stays out.
"""

import logging
import os
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import kaleido
from choreographer.browsers.chromium import Chromium
from kaleido.errors import BrowserFailedError

from memedynamics.errors import InputError
from memedynamics.figures import PX

LONGEST = 300  # s a drawing may take
DPI = 300  # dots an inch of a png
FORMATS = ("pdf", "svg", "png")
INSTALL = (
    "figures on paper need Chromium or Chrome: install Debian's package chromium (apt-get install chromium), or run "
    "plotly_get_chrome, or set BROWSER_PATH to a browser's program; HTML figures need none"
)


class Print(NamedTuple):
    """A drawing (Plotly's data and layout) to print to `path`, whose suffix is the format, `width` inches wide."""

    drawing: dict
    path: Path
    width: float


def print_drawings(prints: Sequence[Print]) -> None:
    """Print all of `prints` with one browser; a file that exists is whole.

    Raises InputError for another format, and where no browser is found or it does not start.
    """
    for path in (each.path for each in prints):
        if path.suffix[1:] not in FORMATS:
            raise InputError(f"{path}: no format of figures on paper; use {', '.join(FORMATS)}")
        path.parent.mkdir(parents=True, exist_ok=True)
    browser = _browser()
    partial = [each.path.with_name(f".{each.path.stem}.partial{each.path.suffix}") for each in prints]
    asked = [{"fig": _named(p.drawing), "path": at, "opts": _size(p)} for p, at in zip(prints, partial, strict=True)]
    options = {"n": 1, "timeout": LONGEST, "mathjax": False, "path": browser}
    # When a browser is closed, the word for it is reported as a broken message.
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)
    try:
        kaleido.write_fig_from_object_sync(asked, kopts=options, cancel_on_error=True)
    except BrowserFailedError as error:
        raise InputError(f"{browser} does not start; {INSTALL}") from error
    for path, each in zip(partial, prints, strict=True):
        path.write_bytes(CLEANED[each.path.suffix](path.read_bytes()))
        path.replace(each.path)


def _browser() -> str:
    found = Chromium.find_browser(skip_local=False)
    if not found or not os.access(found, os.X_OK):
        raise InputError(f"no browser at {found}; {INSTALL}" if found else INSTALL)
    return found


def _named(drawing: dict) -> dict:
    """`drawing` with names for its traces, which Plotly would draw at random."""
    return {**drawing, "data": [{**trace, "uid": str(place)} for place, trace in enumerate(drawing["data"])]}


def _size(each: Print) -> dict[str, float]:
    """The drawing's own size in pixels, scaled to the paper's."""
    layout = each.drawing["layout"]
    dots = DPI if each.path.suffix == ".png" else PX
    return {"width": layout["width"], "height": layout["height"], "scale": each.width * dots / layout["width"]}


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


CLEANED = {".pdf": _undated, ".svg": _unmarked, ".png": _sized}
