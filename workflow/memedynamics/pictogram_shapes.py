"""The drawings that pictograms are made of: creatures of fictional groups, and what is done to them.

Every drawing is in units of its canvas: x to the right, y down, (0, 0) the centre, 1 half the creature's height.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]
DARK, WHITE, RED, YELLOW, GREY, BROWN, PINK = (
    (40, 36, 48),
    (250, 250, 246),
    (214, 48, 49),
    (250, 200, 50),
    (120, 124, 134),
    (110, 70, 44),
    (240, 98, 146),
)


@dataclass(frozen=True)
class Canvas:
    """Where and with which pen a drawing goes."""

    draw: ImageDraw.ImageDraw
    centre: Point
    unit: float
    outline: Colour
    width: int
    tint: Callable[[Colour], Colour]

    def _at(self, points: Sequence[Point]) -> list[Point]:
        (x, y), s = self.centre, self.unit
        return [(x + s * a, y + s * b) for a, b in points]

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """A filled ellipse with the pen's outline."""
        box = self._at([(x - rx, y - ry), (x + rx, y + ry)])
        self.draw.ellipse([*box[0], *box[1]], fill=self.tint(colour), outline=self.outline, width=self.width)

    def poly(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon with the pen's outline."""
        corners = self._at(points)
        self.draw.polygon(corners, fill=self.tint(colour))
        self.draw.line([*corners, corners[0], corners[1]], fill=self.outline, width=self.width, joint="curve")

    def line(self, points: Sequence[Point], colour: Colour, width: float = 0.1) -> None:
        """An open line of `width` units."""
        self.draw.line(self._at(points), fill=self.tint(colour), width=max(1, round(width * self.unit)), joint="curve")


def _face(c: Canvas, y: float, happy: bool, eyes: Sequence[float] = (-0.28, 0.28)) -> None:
    for x in eyes:
        c.disc(x, y, 0.2, 0.24, WHITE)
        c.disc(x, y + (0.02 if happy else 0.1), 0.08, 0.11, DARK)
    bend = 0.14 if happy else -0.14
    curve = [(-0.3 + 0.06 * i, y + 0.48 + bend * (1 - ((i - 5) / 5) ** 2)) for i in range(11)]
    c.line(curve, DARK, 0.09)


def zorbling(c: Canvas, happy: bool) -> None:
    """A green ball with one eye and two antennae."""
    for side in (-1, 1):
        c.line([(side * 0.25, -0.6), (side * 0.5, -1.05)], DARK, 0.09)
        c.disc(side * 0.5, -1.08, 0.12, 0.12, YELLOW)
    c.disc(0, 0.15, 0.85, 0.85, (92, 184, 92))
    _face(c, 0, happy, eyes=(0,))


def quibbler(c: Canvas, happy: bool) -> None:
    """A tall purple cone with a badge."""
    c.poly([(0, -1.15), (0.75, 1), (-0.75, 1)], (142, 90, 190))
    _face(c, 0.05, happy, eyes=(-0.2, 0.2))
    c.disc(0, 0.8, 0.12, 0.12, YELLOW)


def mimble(c: Canvas, happy: bool) -> None:
    """An orange box with pointed ears."""
    for side in (-1, 1):
        c.poly([(side * 0.75, -0.5), (side * 0.7, -1.15), (side * 0.15, -0.5)], (240, 140, 50))
    c.poly([(-0.75, -0.55), (0.75, -0.55), (0.75, 1), (-0.75, 1)], (240, 140, 50))
    _face(c, -0.05, happy)
    c.poly([(-0.3, 0.75), (0.3, 0.75), (0.3, 0.95), (-0.3, 0.95)], WHITE)


def trundler(c: Canvas, happy: bool) -> None:
    """A blue dome on wheels."""
    dome = [(0.95 * x, 0.7 - 1.5 * (1 - x * x) ** 0.5) for x in [-1 + 0.1 * i for i in range(21)]]
    c.poly(dome, (66, 140, 220))
    for x in (-0.55, 0, 0.55):
        c.disc(x, 0.82, 0.22, 0.22, DARK)
    _face(c, -0.1, happy)


def fenling(c: Canvas, happy: bool) -> None:
    """A pink star."""
    star = [(0, -1.2), (0.34, -0.5), (1.1, -0.4), (0.58, 0.2), (0.75, 1), (0, 0.65)]
    c.poly([*star, *[(-x, y) for x, y in star[-2:0:-1]]], (238, 120, 160))
    _face(c, -0.15, happy, eyes=(-0.22, 0.22))


def cage(c: Canvas) -> None:
    """Bars in front of the creature."""
    for x in (-1.05, -0.53, 0, 0.53, 1.05):
        c.line([(x, -1.3), (x, 1.25)], DARK, 0.13)
    for y in (-1.3, 1.25):
        c.line([(-1.2, y), (1.2, y)], DARK, 0.2)


def boot(c: Canvas) -> None:
    """A boot that kicks from the left."""
    c.poly([(-2.1, -1.2), (-1.4, -1.2), (-1.3, -0.05), (-0.6, 0.25), (-0.6, 0.7), (-2.1, 0.7)], BROWN)
    c.poly([(-2.15, 0.7), (-0.55, 0.7), (-0.55, 0.9), (-2.15, 0.9)], DARK)
    for y in (-0.7, 0, 0.7):
        c.line([(1.15, y), (1.75, y)], DARK, 0.1)


def tomatoes(c: Canvas) -> None:
    """Tomatoes thrown at the creature, some splashed."""
    for x, y in ((-1.55, -0.7), (1.5, -0.2), (-1.45, 0.7), (1.55, 0.9)):
        c.disc(x, y, 0.3, 0.27, RED)
        c.poly([(x - 0.12, y - 0.24), (x + 0.12, y - 0.24), (x, y - 0.42)], (60, 140, 60))
    for x, y in ((-0.45, -0.45), (0.5, 0.6)):
        c.poly(
            [(x - 0.3, y), (x - 0.1, y - 0.12), (x, y - 0.34), (x + 0.1, y - 0.1), (x + 0.32, y + 0.05), (x, y + 0.3)],
            RED,
        )


def storm(c: Canvas) -> None:
    """A thundercloud over the creature."""
    for x in (-1.2, 1.2):
        c.poly(
            [(x, -0.75), (x - 0.35, 0.05), (x - 0.05, 0.05), (x - 0.3, 0.8), (x + 0.35, -0.2), (x + 0.05, -0.2)], YELLOW
        )
    for x, y in ((-1, -1.2), (-0.35, -1.4), (0.35, -1.4), (1, -1.2), (0, -1.1)):
        c.disc(x, y, 0.55, 0.32, GREY)


def cake(c: Canvas) -> None:
    """A cake with candles on the right."""
    c.poly([(0.85, 0.3), (2.05, 0.3), (2.05, 1), (0.85, 1)], (250, 224, 190))
    c.poly([(0.85, 0.3), (2.05, 0.3), (2.05, 0.52), (0.85, 0.52)], PINK)
    for x in (1.1, 1.45, 1.8):
        c.line([(x, -0.1), (x, 0.3)], WHITE, 0.12)
        c.disc(x, -0.22, 0.09, 0.14, YELLOW)


def hearts(c: Canvas) -> None:
    """Hearts round the creature."""
    for x, y, s in ((-1.5, -0.7, 0.42), (1.5, -0.7, 0.42), (-1.45, 0.6, 0.32), (1.45, 0.6, 0.32)):
        lobes = [(-1, -0.2), (-0.85, -0.75), (-0.4, -0.9), (0, -0.5), (0.4, -0.9), (0.85, -0.75), (1, -0.2), (0, 1)]
        c.poly([(x + s * a, y + s * b) for a, b in lobes], RED)


def crown(c: Canvas) -> None:
    """A crown above the creature and a podium below."""
    c.poly([(-0.55, -0.85), (-0.7, -1.5), (-0.3, -1.15), (0, -1.6), (0.3, -1.15), (0.7, -1.5), (0.55, -0.85)], YELLOW)
    c.poly([(-1.6, 1), (1.6, 1), (1.6, 1.35), (-1.6, 1.35)], YELLOW)


def balloons(c: Canvas) -> None:
    """Balloons on both sides."""
    for x, y, colour in (
        (-1.5, -0.7, RED),
        (1.5, -0.7, (66, 140, 220)),
        (-1.2, -0.1, YELLOW),
        (1.25, -0.1, (92, 184, 92)),
    ):
        c.line([(x, y), (x * 0.85, 1)], DARK, 0.05)
        c.disc(x, y, 0.36, 0.44, colour)


GROUPS: dict[str, Callable[[Canvas, bool], None]] = {
    "Zorblings": zorbling,
    "Quibblers": quibbler,
    "Mimbles": mimble,
    "Trundlers": trundler,
    "Fenlings": fenling,
}
HARMS: dict[str, Callable[[Canvas], None]] = {"cage": cage, "boot": boot, "tomatoes": tomatoes, "storm": storm}
WELCOMES: dict[str, Callable[[Canvas], None]] = {"cake": cake, "hearts": hearts, "crown": crown, "balloons": balloons}
