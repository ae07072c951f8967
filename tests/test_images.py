"""Pictures as they come: what is kept in place, what is copied to RGB, what is refused and why."""

import hashlib
import re
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from memedynamics import images


def noise(mode="RGB", size=(24, 16)):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], channels), np.uint8)
    return Image.frombytes(mode, size, pixels.tobytes())


def saved(path, image, **options):
    image.save(path, **options)
    return path


def pixels(path):
    return np.asarray(images.open_image(path))


def test_a_plain_picture_stays_in_place(tmp_path):
    path = saved(tmp_path / "a.png", noise())
    found = images.prepare(path, tmp_path / "out")
    assert (found.path, found.width, found.height) == (path, 24, 16)
    assert not (tmp_path / "out").exists()
    # Independent: "width height " and the pixels row by row.
    assert found.sha256 == hashlib.sha256(b"24 16 " + np.asarray(noise()).tobytes()).hexdigest()


def test_the_digest_is_of_pixels_not_of_bytes_and_of_the_shape(tmp_path):
    as_png = images.prepare(saved(tmp_path / "a.png", noise()), tmp_path)
    as_bmp = images.prepare(saved(tmp_path / "a.bmp", noise()), tmp_path)
    turned = Image.frombytes("RGB", (16, 24), noise().tobytes())
    assert as_png.sha256 == as_bmp.sha256
    assert images.prepare(saved(tmp_path / "b.png", turned), tmp_path).sha256 != as_png.sha256


def test_a_tall_picture_is_hashed_in_strips_as_if_whole():
    tall = noise(size=(3, 1200))
    assert images.pixel_digest(tall) == hashlib.sha256(b"3 1200 " + tall.tobytes()).hexdigest()


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palette_stay_in_place(tmp_path, mode):
    path = saved(tmp_path / "a.png", noise("L").convert(mode))
    assert images.prepare(path, tmp_path / "out").path == path


def test_an_animation_becomes_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    found = images.prepare(path, tmp_path / "out")
    assert found.path.parent == tmp_path / "out" and (pixels(found.path) == (255, 0, 0)).all()


def test_cmyk_becomes_rgb(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    found = images.prepare(path, tmp_path / "out")
    with Image.open(found.path) as copy:
        assert copy.mode == "RGB"
    # No cyan, all magenta and yellow: red.
    assert np.abs(pixels(found.path).astype(int) - (255, 0, 0)).max() < 8


def test_transparent_parts_are_white(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 255, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    found = images.prepare(saved(tmp_path / "p.png", palette, transparency=1), tmp_path / "out")
    assert pixels(found.path).tolist() == [[[0, 0, 255], [255, 255, 255]]]
    # Half-transparent black on white: 255 × (1 − 128/255) = 127.
    half = images.prepare(saved(tmp_path / "h.png", Image.new("RGBA", (1, 1), (0, 0, 0, 128))), tmp_path / "out")
    assert pixels(half.path).tolist() == [[[127, 127, 127]]]


def test_opaque_alpha_stays_in_place(tmp_path):
    image = noise()
    image.putalpha(255)
    path = saved(tmp_path / "a.png", image)
    assert images.prepare(path, tmp_path / "out").path == path
    assert (pixels(path) == np.asarray(noise())).all()


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6  # shown turned by 90° clockwise
    path = saved(tmp_path / "a.png", noise(), exif=exif)
    found = images.prepare(path, tmp_path / "out")
    assert (found.width, found.height) == (16, 24)
    assert (pixels(found.path) == np.rot90(np.asarray(noise()), -1)).all()
    assert images.prepare(found.path, tmp_path / "again").path == found.path  # upright now, and not turned twice


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = Image.fromarray(np.array([[0, 32896, 65535]], np.uint16))
    found = images.prepare(saved(tmp_path / "a.png", deep), tmp_path / "out")
    assert pixels(found.path)[0, :, 0].tolist() == [0, 128, 255]


def test_bytes_are_stored_as_they_are_where_plain(tmp_path):
    data = BytesIO()
    noise().save(data, "JPEG")
    found = images.prepare(data.getvalue(), tmp_path)
    assert found.path.suffix == ".jpg" and found.path.read_bytes() == data.getvalue()
    assert images.prepare(data.getvalue(), tmp_path) == found and len(list(tmp_path.iterdir())) == 1


def bomb(path):
    """A PNG whose header says 30,000 × 30,000."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def cut(path):
    saved(path, noise(size=(200, 200)), format="PNG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "draw", "reason"),
    [
        ("missing.png", lambda path: None, "picture is missing"),
        ("folder.png", lambda path: path.mkdir(), "picture is missing"),
        ("empty.png", lambda path: path.write_bytes(b""), r"picture is empty \(0 bytes\)"),
        ("text.png", lambda path: path.write_text("<html>"), "picture is in no known format"),
        ("vector.png", lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "picture is in no known format"),
        ("cut.png", cut, "picture is truncated or damaged"),
        ("bomb.png", bomb, "picture has more than 89478485 pixels"),
    ],
)
def test_an_unusable_picture_has_a_reason_that_names_it(tmp_path, name, draw, reason):
    draw(tmp_path / name)
    found = images.prepare(tmp_path / name, tmp_path / "out")
    assert isinstance(found, str) and len(found.splitlines()) == 1
    assert re.match(f"{reason}: .*{name}", found)
    assert not (tmp_path / "out").exists()


def test_a_picture_just_over_the_limit_is_refused_not_warned_of(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", noise())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 16 - 1)
    assert images.prepare(path, tmp_path).startswith("picture has more than 383 pixels")


def test_damaged_bytes_have_a_reason(tmp_path):
    assert images.prepare(b"\x89PNG\r\n\x1a\n garbage", tmp_path).startswith("picture is")
