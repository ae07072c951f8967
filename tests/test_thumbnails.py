"""The report's pictures: small, named by what they show, and whole where asked."""

import pytest
from PIL import Image

from memedynamics import images, thumbnails
from memedynamics.errors import InputError


def made(folder, source, kind="thumbnails"):
    digest = images.pixel_digest(images.open_image(source))
    for _ in thumbnails.make([(str(source), digest)], folder, kind, threads=1):
        pass
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()), digest


def saved(path, size=(800, 400), mode="RGB", **options):
    Image.effect_mandelbrot(size, (-2, -1, 1, 1), 40).convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGB"), ("a.png", "P"), ("a.jpg", "RGB"), ("a.gif", "P")])
def test_thumbnails_are_small_and_like_the_picture(tmp_path, name, mode):
    source = saved(tmp_path / name, mode=mode)
    files, digest = made(tmp_path / "out", source)
    assert files == [f"small/{digest[:2]}/{digest[:20]}.webp"]
    with Image.open(tmp_path / "out" / files[0]) as small, images.open_image(source) as whole:
        assert small.size == (256, 128)
        one, other = (image.convert("L").resize((16, 8)) for image in (small, whole))
        assert max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)) < 24


def test_a_small_picture_is_not_enlarged(tmp_path):
    files, _ = made(tmp_path / "out", saved(tmp_path / "a.png", (40, 30)))
    with Image.open(tmp_path / "out" / files[0]) as small:
        assert small.size == (40, 30)


def test_names_of_users_files_are_not_used(tmp_path):
    source = saved(tmp_path / '"><img src=x onerror=alert(1)>.png')
    files, _ = made(tmp_path / "out", source, "full")
    assert len(files) == 2 and not any("alert" in file for file in files)


@pytest.mark.parametrize(("name", "ending"), [("a.png", ".png"), ("wrong.png", ".jpg"), ("a.tif", ".png")])
def test_whole_pictures_are_what_browsers_show(tmp_path, name, ending):
    """By what the file is, not by its name: wrong.png is a JPEG."""
    source = saved(tmp_path / name, **({"format": "JPEG"} if name == "wrong.png" else {}))
    files, digest = made(tmp_path / "out", source, "full")
    assert files[1] == f"whole/{digest[:2]}/{digest[:20]}{ending}"
    assert thumbnails.endings([tmp_path / "out"]) == {digest[:20]: ending}
    whole = images.open_image(tmp_path / "out" / files[1])
    assert whole.tobytes() == images.open_image(source).tobytes()
    # A copy: who edits the report's pictures leaves the dataset alone.
    assert (tmp_path / "out" / files[1]).stat().st_ino != source.stat().st_ino


def test_a_picture_that_is_gone_is_named(tmp_path):
    with pytest.raises(InputError, match="gone.png: the picture cannot be shown .* set report.images: none"):
        list(thumbnails.make([(str(tmp_path / "gone.png"), "ab" * 32)], tmp_path / "out", "thumbnails", 1))
    saved(tmp_path / "cut.png")
    tmp_path.joinpath("cut.png").write_bytes(tmp_path.joinpath("cut.png").read_bytes()[:2000])
    with pytest.raises(InputError, match="cut.png: the picture cannot be shown"):
        list(thumbnails.make([(str(tmp_path / "cut.png"), "ab" * 32)], tmp_path / "out", "thumbnails", 1))


def test_a_full_disk_is_not_blamed_on_the_picture(tmp_path):
    """What cannot be written is told by the system's own error, which a job explains."""
    source = saved(tmp_path / "a.png")
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="out"):
        list(thumbnails.make([(str(source), "ab" * 32)], tmp_path / "out", "thumbnails", 1))


def test_pictures_of_other_splits_are_taken_away(tmp_path):
    kept, gone = tmp_path / "memes/val", tmp_path / "removed/test"
    for folder in (kept, gone):
        saved((folder / "small").mkdir(parents=True) or folder / "small/a.png")
    thumbnails.forget_others(tmp_path, [kept])
    assert (kept / "small/a.png").exists() and not gone.exists()
