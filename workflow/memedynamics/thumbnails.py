"""The pictures that the report shows: small ones, and where asked whole ones, named by what they show.

No name of a user's file is used: a picture's name is the digest of its pixels, in folders of its first two digits.
"""

import os
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
    try:
        small = folder / SMALL / f"{name}.webp"
        small.parent.mkdir(parents=True, exist_ok=True)
        _thumbnail(source).save(small, "WEBP", quality=80)
        if whole:
            _whole(source, folder / WHOLE / name)
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{source}: the picture cannot be shown ({error}); restore it, or set report.images: none"
        ) from error


def _thumbnail(source: Path) -> Image.Image:
    with Image.open(source, formats=FORMATS) as image:
        image.draft("RGB", (2 * SIDE, 2 * SIDE))  # JPEG decodes to a smaller size at once
        rgb = image.convert("RGB")
    rgb.thumbnail((SIDE, SIDE))
    return rgb


def _whole(source: Path, target: Path) -> None:
    """`source` under the name `target` and its format's ending; as PNG where browsers do not show the format."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source, formats=FORMATS) as image:
        ending = SHOWN.get(image.format)
    if ending is None:
        open_image(source).save(target.with_suffix(".png"))
        return
    try:
        os.link(source.resolve(), target.with_suffix(ending))  # no second copy where both are on one disk
    except FileExistsError:
        return
    except OSError:
        shutil.copyfile(source, target.with_suffix(ending))


def endings(folders: Iterable[Path]) -> dict[str, str]:
    """The ending of every whole picture in `folders`, by its name: the first DIGITS digits of its digest."""
    return {file.stem: file.suffix for folder in folders for file in (folder / WHOLE).glob("*/*")}
