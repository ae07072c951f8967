"""Pictures changed without a change of size, so that a prompt keeps its tokens and every policy sees the same noise.

1. Noise is one standard normal field a meme, drawn from its key and scaled by σ: a larger σ is more of the same noise.
   It is added to the stored picture's own pixels (0 … 255), rounded and cut there; a processor that shrinks pictures
   averages some of it away.
2. Another picture comes from a meme with the same caption and the other label where there is one (`natural_swap`: the
   right answer flips), else from a seeded other meme of the same dataset and split (`other_image`).
"""

import io
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from PIL import Image, ImageFilter

from memedynamics import captions
from memedynamics.keys import MEME

CLEAN, BLUR, JPEG, BLANK, NATURAL, OTHER = "clean", "blur", "jpeg", "blank", "natural_swap", "other_image"
NOISE = "noise_"  # followed by σ, of 255
GREY = (127, 127, 127)
BLUR_RADIUS = 0.025  # of the shorter side
JPEG_QUALITY = 10  # of 95

Key = tuple[str, str, str]


class Swap(NamedTuple):
    """Where another picture comes from."""

    kind: str  # NATURAL or OTHER
    meme: Key  # dataset, split, id


def names(noise: Sequence[int]) -> list[str]:
    """The perturbations that keep the meme's own picture, CLEAN first; `noise`: σ of 255."""
    return [CLEAN, *(f"{NOISE}{sigma}" for sigma in noise), BLUR, JPEG, BLANK]


def perturbed(image: Image.Image, name: str, key: Key) -> Image.Image:
    """The RGB picture of meme `key` with the perturbation `name` of `names`, in its own size."""
    if name == CLEAN:
        return image
    if name == BLUR:
        return image.filter(ImageFilter.GaussianBlur(BLUR_RADIUS * min(image.size)))
    if name == JPEG:
        return _compressed(image)
    if name == BLANK:
        return Image.new("RGB", image.size, GREY)
    return _noisy(image, int(name.removeprefix(NOISE)), key)


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """`image` stretched to `size` (width, height), px: another meme's picture in this one's place."""
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _compressed(image: Image.Image) -> Image.Image:
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=JPEG_QUALITY)
    return Image.open(stored).convert("RGB")


def _noisy(image: Image.Image, sigma: int, key: Key) -> Image.Image:
    field = _random("noise", *key).standard_normal((image.height, image.width, 3), dtype=np.float32)
    pixels = np.asarray(image, np.float32) + sigma * field
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def swaps(memes: pl.DataFrame, data: pl.DataFrame) -> dict[Key, Swap]:
    """Another meme for each of `memes` that has one; `data` (dataset, split, id, text, label): all to choose from.

    The choice depends on nothing but the meme's key and its candidates.
    """
    pool = data.sort(MEME).with_columns(caption=pl.Series(captions.clusters(data.sort(MEME)["text"])))
    rows = pool.select(*MEME, "caption", "label").rows()
    by_split, by_caption = _grouped(rows, 2), _grouped(rows, 4)
    found = {}
    for dataset, split, name, caption, label in pool.join(memes.select(MEME), MEME, "semi").select(
        *MEME, "caption", "label"
    ).rows():  # fmt: skip
        key = (dataset, split, name)
        natural = [row[:3] for row in by_caption[dataset, split, caption] if row[4] != label]
        others = [row[:3] for row in by_split[dataset, split] if row[:3] != key]
        candidates = natural or others
        if candidates:
            chosen = candidates[int(_random("swap", *key).integers(len(candidates)))]
            found[key] = Swap(NATURAL if natural else OTHER, chosen)
    return found


def _grouped(rows: Sequence[tuple], columns: int) -> dict[tuple, list[tuple]]:
    """Rows by dataset and split (`columns` 2), and by caption too (4)."""
    groups: dict[tuple, list[tuple]] = {}
    for row in rows:
        key = row[:2] if columns == 2 else (*row[:2], row[3])
        groups.setdefault(key, []).append(row)
    return groups


def _random(*key: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32("/".join(key).encode()))
