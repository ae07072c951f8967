"""The figures of the paper: each as a whole at the text's width, and each panel at a column's.

A whole figure keeps its panels, their letters and the key of methods and seeds; title and note are the caption's, and a
table is typeset. It is drawn 1000 px wide and printed 7 inches wide, so that 11 px are 5.5 points: no font is
smaller. Taller than a page it may not be: its panels are lowered, the room between them is not.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from memedynamics.figures import HEADING, NOTE
from memedynamics.paper_panels import TEXT, axis, on_axes, panels
from memedynamics.plotly_text import fitted
from memedynamics.printing import Print

TALLEST = 7.5  # in: a page's text less a caption
SMALLEST, LARGEST = 11.0, 14.0  # px of 1000
TOP, BELOW = 66, 58  # px: the key and the titles of the first panels; the labels below the last


def prints(drawings: dict[str, dict], folder: Path) -> list[Print]:
    """What to print of `drawings` by name: {name} and panels/{name}_{letter}."""
    found = []
    for name, drawing in drawings.items():
        found.append(Print(whole(drawing), folder / name, TEXT))
        for panel in panels(drawing):
            found.append(Print(panel.drawing, folder / f"panels/{name}_{panel.letter}", panel.width))
    return found


def whole(drawing: dict) -> dict:
    """`drawing` as it stands on a page, without what the caption says."""
    layout = {key: value for key, value in drawing["layout"].items() if key not in ("annotations", "margin", "height")}
    notes = drawing["layout"].get("annotations", [])
    layout["annotations"] = [note for note in notes if note.get("name") not in (HEADING, NOTE)]
    traces = on_axes(drawing)
    names = list(dict.fromkeys(trace.get("yaxis", "y") for trace in traces))
    margin = {"t": 0, "b": 0, **drawing["layout"].get("margin", {})}
    height = drawing["layout"]["height"] - margin["t"] - margin["b"]
    domains = [axis(drawing, name).get("domain", [0, 1]) for name in names]
    places, plot = _lowered(domains, height, layout["width"])
    for name, domain in zip(names, places, strict=True):
        layout[f"yaxis{name[1:]}"] = {**axis(drawing, name), "domain": domain}
    layout |= {"height": TOP + plot + BELOW, "margin": {**margin, "t": TOP, "b": BELOW}}
    return fitted({"data": traces, "layout": layout}, SMALLEST, LARGEST)


def _lowered(domains: Sequence[Sequence[float]], height: float, width: float) -> tuple[list[list[float]], float]:
    """`domains` of y axes in a plot that is low enough for a page, and its height in px.

    What is below the lowest and above the highest panel goes; where panels are, all is lowered alike.
    """
    parts = list(_covered(domains))
    gaps = [height * (b[0] - a[1]) for a, b in zip(parts, parts[1:], strict=False)]
    covered = height * sum(end - start for start, end in parts)
    room = TALLEST * width / TEXT - TOP - BELOW - sum(gaps)
    share = min(1.0, room / covered)
    plot = share * covered + sum(gaps)

    def placed(y: float) -> float:
        inside = sum(min(max(y - start, 0), end - start) for start, end in parts)
        between = sum(gap for gap, part in zip(gaps, parts[1:], strict=True) if y >= part[0])
        return (share * height * inside + between) / plot

    return [[placed(end) for end in domain] for domain in domains], plot


def _covered(domains: Sequence[Sequence[float]]) -> Iterator[tuple[float, float]]:
    """The parts of the height that hold a panel, from below."""
    start, end = sorted(domains)[0]
    for low, high in sorted(domains):
        if low > end:
            yield start, end
            start = low
        end = max(end, high)
    yield start, end
