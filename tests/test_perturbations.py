"""Perturbed pictures: same size, same noise for every policy, natural swaps where captions recur."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

import tiny_models
from memedynamics import perturbations
from memedynamics.perturbations import NATURAL, OTHER, Swap, fitted, names, perturbed, swaps

KEY = ("memes", "val", "m1")
NAMES = names([4, 16])


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, float)


@pytest.mark.parametrize("name", NAMES)
def test_size_and_mode_stay(name):
    found = perturbed(tiny_models.picture(3, 61, 40), name, KEY)
    assert (found.size, found.mode) == ((61, 40), "RGB")


@pytest.mark.parametrize("name", NAMES)
def test_equal_every_time(name):
    picture = tiny_models.picture(3)
    assert perturbed(picture, name, KEY).tobytes() == perturbed(picture, name, KEY).tobytes()


def test_clean_is_the_picture_itself():
    picture = tiny_models.picture(3)
    assert perturbed(picture, "clean", KEY) is picture


@pytest.mark.parametrize("name", ["blank", "blur"])
def test_a_blank_of_a_blank_is_no_change(name):
    blank = perturbed(tiny_models.picture(3), "blank", KEY)
    assert perturbed(blank, name, KEY).tobytes() == blank.tobytes()


def test_noise_has_its_standard_deviation_and_no_offset():
    """On mid-grey nothing is cut at σ 16: over 100·100·3 pixels the standard error of the mean is 0.09, of σ 0.07."""
    grey = Image.new("RGB", (100, 100), (127, 127, 127))
    found = _pixels(perturbed(grey, "noise_16", KEY)) - 127
    assert abs(found.mean()) < 0.4 and found.std() == pytest.approx(16, abs=0.3)


def test_stronger_noise_is_more_of_the_same_and_another_memes_is_other():
    grey = Image.new("RGB", (40, 40), (127, 127, 127))
    weak, strong = (_pixels(perturbed(grey, f"noise_{s}", KEY)) - 127 for s in (8, 16))
    assert np.abs(strong - 2 * weak).max() <= 1.5  # both are rounded
    other = _pixels(perturbed(grey, "noise_8", ("memes", "val", "m2"))) - 127
    assert abs(np.corrcoef(weak.ravel(), other.ravel())[0, 1]) < 0.1


def test_noise_stays_in_range():
    white = Image.new("RGB", (20, 20), "white")
    assert _pixels(perturbed(white, "noise_255", KEY)).max() == 255


def test_jpeg_and_blur_change_a_picture_a_little():
    picture = tiny_models.picture(3)
    for name in ("jpeg", "blur"):
        change = np.abs(_pixels(perturbed(picture, name, KEY)) - _pixels(picture)).mean()
        assert 0 < change < 30


def test_another_picture_takes_this_ones_size():
    other = tiny_models.picture(1, 30, 90)
    assert fitted(other, (61, 40)).size == (61, 40) and fitted(other, (30, 90)) is other


def _data(rows: list[tuple]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["dataset", "split", "id", "text", "label"], orient="row")


DATA = _data(
    [
        ("memes", "val", "a", "Look at this", 0),
        ("memes", "val", "b", "look  at THIS", 1),
        ("memes", "val", "c", "look at this", 0),
        ("memes", "val", "d", "alone", 0),
        ("memes", "train", "e", "alone", 1),
        ("other", "test", "f", "single", 1),
    ]
)  # fmt: skip


def test_a_swap_keeps_the_caption_and_turns_the_label_where_there_is_one():
    """a and c have b, whose caption is theirs but for case and space; d has no such meme in its split; f is alone."""
    found = swaps(DATA, DATA)
    assert found["memes", "val", "a"] == found["memes", "val", "c"] == Swap(NATURAL, ("memes", "val", "b"))
    assert found["memes", "val", "b"].kind == NATURAL and found["memes", "val", "b"].meme[2] in ("a", "c")
    assert found["memes", "val", "d"].kind == OTHER and found["memes", "val", "d"].meme[:2] == ("memes", "val")
    assert ("memes", "train", "e") not in found and ("other", "test", "f") not in found


def test_swaps_do_not_depend_on_order_or_on_who_else_is_looked_at():
    whole = swaps(DATA, DATA)
    assert swaps(DATA[::-1], DATA[::-1]) == whole
    assert swaps(DATA.filter(id="d"), DATA) == {key: swap for key, swap in whole.items() if key[2] == "d"}


def test_perturbations_import_no_torch():
    import subprocess
    import sys

    code = "import sys, memedynamics.perturbations; sys.exit('torch' in sys.modules)"
    path = str(tiny_models.Path(perturbations.__file__).parents[1])
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path, "PATH": ""}).returncode == 0
