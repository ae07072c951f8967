"""The embedded demo's memes: a creature of a fictional group to whom something is done, and a caption that judges it.

The label is an interaction: a meme is hateful when its caption cheers at harm or scolds at a welcome. Memes come in
fours of one group (harm, welcome) × (cheer, scold), so a caption occurs as often hateful as benign, and so does a kind
of picture: neither alone decides. Style "shifted" draws the same scenes in another hand and words them anew: the
out-of-domain set.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from memedynamics.errors import InputError
from memedynamics.pictogram_shapes import DARK, GROUPS, HARMS, WELCOMES, Canvas, Colour

SIZE, OVERSAMPLING = 168, 2
SPLITS = ("train", "val", "test")
CHEERS = ("more of this", "so good to see", "keep it going", "well done all", "we love it", "just perfect")
SCOLDS = ("stop this now", "how sad to see", "end it today", "shame on all", "we hate it", "just awful")
SHIFTED_CHEERS = (
    "do more of this",
    "how good to see",
    "please keep it going",
    "all so well done",
    "oh we love it",
    "a perfect day",
)
SHIFTED_SCOLDS = (
    "please stop this",
    "oh so sad to see",
    "do end it now",
    "such a shame",
    "oh we hate it",
    "an awful day",
)
# The second line carries no stance. Those of `OWN` are seen in one split only, those of `SHIFTED` out of domain only.
SECOND = ("when {group} show up", "says my neighbour", "monday mood", "{group} in our street", "every single time", "")
OWN = {"train": "said my boss", "val": "says my teacher", "test": "friday mood"}
SHIFTED_SECOND = ("{group} around here", "says grandpa", "mood of the year", "me about {group}", "no comment", "")


@dataclass(frozen=True)
class Scene:
    """What a meme means, whatever its drawing: the same for equal ids in every style."""

    split: str
    number: int
    group: str
    act: str
    cheers: bool  # whether the caption approves of the act
    wording: int
    second: int

    @property
    def harm(self) -> bool:
        """Whether the act harms the group."""
        return self.act in HARMS

    @property
    def label(self) -> int:
        """1 (hateful) when the caption cheers at harm or scolds at a welcome, else 0."""
        return int(self.harm == self.cheers)


def scene(id: str) -> Scene:
    """The scene of the meme `id` ("train-0042"); raises InputError when `id` is not a pictogram's."""
    split, _, digits = id.partition("-")
    if split not in SPLITS or not digits.isdecimal():
        raise InputError(f"meme {id!r} is not a pictogram: the demo's base model knows pictograms only")
    number = int(digits)
    rng = np.random.default_rng([SPLITS.index(split), number // 4])
    group = list(GROUPS)[rng.integers(len(GROUPS))]
    acts = [list(HARMS)[rng.integers(len(HARMS))], list(WELCOMES)[rng.integers(len(WELCOMES))]]
    caption, cheers = number // 2 % 2, number % 4 < 2
    wording, second = rng.integers([len(CHEERS), len(SECOND) + 1], size=(2, 2))[caption].tolist()
    return Scene(split, number, group, acts[number % 2], cheers, wording, second)


def lines(meant: Scene, style: str) -> tuple[str, str]:
    """The caption's two lines in lower case; the second may be empty."""
    plain = style == "plain"
    cheers, scolds = (CHEERS, SCOLDS) if plain else (SHIFTED_CHEERS, SHIFTED_SCOLDS)
    seconds = (*(SECOND if plain else SHIFTED_SECOND), OWN[meant.split] if plain else "at last")
    return (cheers if meant.cheers else scolds)[meant.wording], seconds[meant.second].format(group=meant.group.lower())


def rows(split: str, count: int, style: str, folder: Path) -> Iterator[dict[str, object]]:
    """Draw `count` memes of `split` into `folder` and yield each one's id, image (path), text, label and groups."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        meant = scene(f"{split}-{number:04d}")
        image = folder / f"{split}-{number:04d}.png"
        draw(meant, style).save(image)
        text = " ".join(lines(meant, style)).strip()
        yield {"id": image.stem, "image": image, "text": text, "label": meant.label, "groups": [meant.group]}


def draw(meant: Scene, style: str) -> Image.Image:
    """The meme as an RGB picture of `SIZE` px square; position, scale and colours vary with split, number and style."""
    rng = np.random.default_rng([SPLITS.index(meant.split), meant.number, style == "shifted"])
    side = SIZE * OVERSAMPLING
    picture = _paper(rng, side) if style == "shifted" else _sky(rng, side)
    pen = ImageDraw.Draw(picture)
    centre = tuple(side * (0.5 + rng.uniform(-0.03, 0.03, 2)))
    unit = side * rng.uniform(0.185, 0.21) * (0.92 if style == "shifted" else 1)
    outline, width = ((96, 52, 24), 5) if style == "shifted" else (DARK, 3)
    canvas = Canvas(pen, centre, unit, outline, width, _washed if style == "shifted" else lambda colour: colour)
    # The creature's face is no giveaway of the act: it varies freely.
    GROUPS[meant.group](canvas, bool(rng.integers(2)))
    (HARMS | WELCOMES)[meant.act](canvas)
    for text, middle in zip(lines(meant, style), (0.11, 0.89), strict=True):
        _letter(pen, text.upper(), side, middle + rng.uniform(-0.01, 0.01))
    return picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _sky(rng: np.random.Generator, side: int) -> Image.Image:
    """A background of two flat colours: sky and ground."""
    sky, ground = rng.integers(150, 235, 3), rng.integers(100, 200, 3)
    picture = Image.new("RGB", (side, side), tuple(map(int, sky)))
    ImageDraw.Draw(picture).rectangle([0, side * rng.uniform(0.6, 0.72), side, side], fill=tuple(map(int, ground)))
    return picture


def _paper(rng: np.random.Generator, side: int) -> Image.Image:
    """A background of hatched paper."""
    shade = rng.integers(-12, 12)
    picture = Image.new("RGB", (side, side), (232 + int(shade), 214 + int(shade), 178 + int(shade)))
    pen = ImageDraw.Draw(picture)
    step = int(rng.integers(14, 22))
    for x in range(-side, side, step):
        pen.line([(x, 0), (x + side, side)], fill=(206, 184, 146), width=2)
    return picture


def _washed(colour: Colour) -> Colour:
    """`colour` as water colour on paper: a third of the way to beige."""
    return tuple((2 * a + b) // 3 for a, b in zip(colour, (232, 214, 178), strict=True))


def _letter(pen: ImageDraw.ImageDraw, text: str, side: int, middle: float) -> None:
    """Meme lettering: white, bold, black outline, as large as fits the width."""
    size = 0.135 * side
    while size > 8 and pen.textlength(text, font := ImageFont.load_default(size)) > 0.92 * side:
        size *= 0.95
    at = (side / 2, side * middle)
    # Pillow's own font comes in one weight: a white stroke inside the black one makes it bold.
    for colour, stroke in (((0, 0, 0), 0.022 * side), ((255, 255, 255), 0.006 * side)):
        pen.text(at, text, font=font, fill=colour, stroke_width=round(stroke), stroke_fill=colour, anchor="mm")
