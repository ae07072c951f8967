"""Pictures from outside: decoded once, checked, hashed, and copied to plain RGB where a reader could differ on them."""

import hashlib
import os
import warnings
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError

# Raster formats only: Pillow hands PostScript and the like to programs of the system.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000")
ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
PLAIN_MODES = ("RGB", "L", "1", "P")
ORIENTATION = 0x0112  # EXIF tag; 1 is upright


class Picture(NamedTuple):
    """A whole picture on disk: its path, the digest of its RGB pixels, width and height in px."""

    path: Path
    sha256: str
    width: int
    height: int


def open_image(path: Path) -> Image.Image:
    """The prepared picture at `path` as an RGB image."""
    with Image.open(path, formats=FORMATS) as image:
        return image.convert("RGB")


def prepare(source: Path | bytes, folder: Path) -> Picture | str:
    """The picture in `source` (a file, or its encoded bytes), or 'reason' or 'reason: detail' why there is none.

    A plain file stays where it is. Animated (first frame), CMYK, 16-bit, transparent (on white) and rotated (EXIF)
    pictures become RGB copies in `folder`, as what they show depends on who opens them; plain bytes are stored there.
    """
    if isinstance(source, Path) and not source.is_file():
        return f"picture is missing: {source}"
    if isinstance(source, Path) and source.stat().st_size == 0:
        return f"picture is empty (0 bytes): {source}"
    named = f": {source}" if isinstance(source, Path) else ""
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a bomb up to twice its limit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _prepared(source, folder)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"picture has more than {Image.MAX_IMAGE_PIXELS} pixels{named}"
    except UnidentifiedImageError:
        return f"picture is in no known format{named}"
    except Exception as error:  # Pillow's decoders raise a dozen types on damaged files
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        return f"picture is truncated or damaged{named or ': bytes'} ({detail})"


def _prepared(source: Path | bytes, folder: Path) -> Picture:
    with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
        image.load()
        rgb, plain = upright_rgb(image), is_plain(image)
        digest = pixel_digest(rgb)
        if not plain:
            path = _stored(_png(rgb), folder / f"{digest[:32]}.png")
        elif isinstance(source, bytes):
            path = _stored(source, folder / (hashlib.sha256(source).hexdigest()[:32] + ENDINGS.get(image.format, "")))
        else:
            path = source
        return Picture(path, digest, *rgb.size)


def is_plain(image: Image.Image) -> bool:
    """Whether everybody who opens `image` and converts it to RGB sees the same, upright."""
    if getattr(image, "n_frames", 1) > 1 or _orientation(image) != 1:
        return False
    if image.mode == "RGBA":
        return image.getchannel("A").getextrema() == (255, 255)
    return image.mode in PLAIN_MODES and not image.has_transparency_data


def upright_rgb(image: Image.Image) -> Image.Image:
    """The first frame of `image`, rotated as its EXIF says, transparent parts on white, 8 bit RGB."""
    if getattr(image, "n_frames", 1) > 1:
        image.seek(0)
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16-bit grey: converting clips it to white instead of scaling it.
        return image.convert("I").point(lambda value: value / 257).convert("L").convert("RGB")
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        image = page
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # unreadable EXIF says nothing, and the pixels may be fine
        return 1


def pixel_digest(rgb: Image.Image) -> str:
    """SHA-256 over width, height and the RGB pixels row by row: equal for equal pictures in any encoding."""
    digest = hashlib.sha256(b"%d %d " % rgb.size)
    for top in range(0, rgb.height, 512):  # in strips: a large picture is not held twice
        digest.update(rgb.crop((0, top, rgb.width, min(top + 512, rgb.height))).tobytes())
    return digest.hexdigest()


def _png(rgb: Image.Image) -> bytes:
    encoded = BytesIO()
    rgb.save(encoded, "PNG")
    return encoded.getvalue()


def _stored(data: bytes, path: Path) -> Path:
    """`data` in `path`, whole or not at all: two workers may store the same picture at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)
    return path
