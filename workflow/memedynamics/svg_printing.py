"""A browser's tab that shows one SVG after another and prints it, as pdf with its fonts and as png.

It knows nothing of Plotly, whose library takes a second to load: a figure is drawn once for all formats.
"""

import base64
from html import escape

from choreographer import Tab

from memedynamics.figures import FONT, PX
from memedynamics.svg_fonts import BOLD, REGULAR, Face, installed

PAGE = '<!doctype html><meta charset="utf-8"><title>{}</title><style>body{{margin:0}}svg{{display:block}}</style>{}'
SIDES = ("marginTop", "marginBottom", "marginLeft", "marginRight")


async def show(tab: Tab, svg: str, title: str) -> None:
    """Show `svg` alone in `tab`; `title` is the page's."""
    frame = (await _ask(tab, "Page.getFrameTree"))["frameTree"]["frame"]["id"]
    await _ask(tab, "Page.setDocumentContent", frameId=frame, html=PAGE.format(escape(title), svg))


async def pdf(tab: Tab, width: float, height: float) -> bytes:
    """What `tab` shows on a page of this size in CSS px."""
    paper = {"paperWidth": width / PX, "paperHeight": height / PX, **dict.fromkeys(SIDES, 0)}
    printed = await _ask(tab, "Page.printToPDF", printBackground=True, pageRanges="1", **paper)
    return base64.b64decode(printed["data"])


async def png(tab: Tab, width: float, height: float, dpi: float) -> bytes:
    """The upper left corner of what `tab` shows, of this size in CSS px, with `dpi` dots an inch."""
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": dpi / PX}
    taken = await _ask(tab, "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
    return base64.b64decode(taken["data"])


async def faces(tab: Tab) -> list[Face | None]:
    """What the browser draws the house font with, regular and bold; None where its file is not found."""
    texts = "".join(f'<p style="font: {weight} 12px {FONT}">Font</p>' for weight in (REGULAR, BOLD))
    await show(tab, texts, "fonts")
    for domain in ("DOM", "CSS"):
        await _ask(tab, f"{domain}.enable")
    root = (await _ask(tab, "DOM.getDocument"))["root"]["nodeId"]
    nodes = (await _ask(tab, "DOM.querySelectorAll", nodeId=root, selector="p"))["nodeIds"]
    found = []
    for weight, node in zip((REGULAR, BOLD), nodes, strict=True):
        (font,) = (await _ask(tab, "CSS.getPlatformFontsForNode", nodeId=node))["fonts"]
        found.append(installed(weight, font["familyName"], font["postScriptName"]))
    return found


async def _ask(tab: Tab, command: str, **given: object) -> dict:
    answer = await tab.send_command(command, given)
    if "error" in answer:
        raise RuntimeError(f"the browser's {command}: {answer['error']}")
    return answer["result"]
