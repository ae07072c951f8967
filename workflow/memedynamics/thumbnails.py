"""The pictures that the report shows: small ones, and where asked whole ones, named by what they show.

No name of a user's file is used: a picture's name is the digest of its pixels, in folders of its first two digits.
"""

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from PIL import Image

from memedynamics.errors import InputError
from memedynamics.images import ENDINGS, FORMATS, open_image

SIDE = 256  # px, a thumbnail's longer side
DIGITS = 20  # of the digest that are in a name
SMALL, WHOLE = "small", "whole"  # folders
SHOWN = {name: ENDINGS.get(name, ".avif") for name in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "AVIF")}  # by browsers

Pictures = Literal["none", "thumbnails", "full"]


def stem(digest: str) -> str:
    """What a picture of this digest is called, without folder and ending."""
    return f"{digest[:2]}/{digest[:DIGITS]}"


def make(pictures: Iterable[tuple[str, str]], folder: Path, kind: Pictures, threads: int) -> Iterable[None]:
    """Write the pictures (path, digest) into `folder`, one a step; `full` adds each as it is.

    Pillow decodes outside the interpreter's lock, so threads share the work.
    """
    with ThreadPoolExecutor(threads) as workers:
        yield from workers.map(lambda one: _make(Path(one[0]), stem(one[1]), folder, kind == "full"), pictures)


def _make(source: Path, name: str, folder: Path, whole: bool) -> None:
    picture, ending = _decoded(source)
    small = folder / SMALL / f"{name}.webp"
    small.parent.mkdir(parents=True, exist_ok=True)
    picture.save(small, "WEBP", quality=80)
    if whole:
        _whole(source, folder / WHOLE / name, ending)


def _decoded(source: Path) -> tuple[Image.Image, str | None]:
    """The small picture of `source`, and the ending that browsers know its format by, if they do."""
    try:
        with Image.open(source, formats=FORMATS) as image:
            ending = SHOWN.get(image.format)
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # JPEG decodes to a smaller size at once
            rgb = image.convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{source}: the picture cannot be shown ({error}); restore it, or set report.images: none"
        ) from error
    rgb.thumbnail((SIDE, SIDE))
    return rgb, ending


def _whole(source: Path, target: Path, ending: str | None) -> None:
    """`source` under the name `target` and its format's ending; as PNG where browsers do not show the format.

    A copy: who edits the report's pictures does not edit the dataset.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if ending is None:
        open_image(source).save(target.with_suffix(".png"))
    else:
        shutil.copyfile(source, target.with_suffix(ending))


def endings(folders: Iterable[Path]) -> dict[str, str]:
    """The ending of every whole picture in `folders`, by its name: the first DIGITS digits of its digest."""
    return {file.stem: file.suffix for folder in folders for file in (folder / WHOLE).glob("*/*")}


def forget_others(folder: Path, kept: Iterable[Path]) -> None:
    """Take away what earlier settings or datasets left in `folder`, a report's pictures, beside the folders `kept`."""
    own = {path.absolute() for path in kept}
    for split in folder.glob("*/*"):
        if split.absolute() not in own:
            shutil.rmtree(split)
