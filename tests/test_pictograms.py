"""The demo's corpus: neither caption nor picture alone decides, splits and styles differ, and equal ids draw alike."""

import hashlib
from collections import Counter, defaultdict

import pytest
from PIL import Image

from memedynamics.errors import InputError
from memedynamics.pictogram_shapes import GROUPS, HARMS, WELCOMES
from memedynamics.pictograms import CHEERS, OWN, SCOLDS, SECOND, SIZE, SPLITS, draw, lines, rows, scene

# The demo's own sizes.
COUNTS = {"train": 600, "val": 200, "test": 200}


def scenes(split, count=None):
    return [scene(f"{split}-{number:04d}") for number in range(count or COUNTS[split])]


def caption(meant, style="plain"):
    return " ".join(lines(meant, style)).strip()


def best_accuracy(keys, labels):
    """Accuracy of the best predictor that sees nothing but the key: the majority label of each."""
    counts = defaultdict(Counter)
    for key, label in zip(keys, labels, strict=True):
        counts[key][label] += 1
    return sum(max(found.values()) for found in counts.values()) / len(labels)


@pytest.mark.parametrize("style", ["plain", "shifted"])
@pytest.mark.parametrize("split", SPLITS)
def test_neither_side_alone_decides(split, style):
    """Memes come in fours (harm, welcome) × (cheer, scold): each key stands for as many hateful as benign memes."""
    found = scenes(split)
    labels = [meant.label for meant in found]
    assert sum(labels) * 2 == len(labels)
    alone = {
        "caption": [caption(meant, style) for meant in found],
        "first line": [lines(meant, style)[0] for meant in found],
        "second line": [lines(meant, style)[1] for meant in found],
        "act": [meant.act for meant in found],
        "picture": [(meant.group, meant.act) for meant in found],
        "group": [meant.group for meant in found],
    }
    assert {name: best_accuracy(keys, labels) for name, keys in alone.items()} == dict.fromkeys(alone, 0.5)
    assert best_accuracy([(meant.harm, meant.cheers) for meant in found], labels) == 1


@pytest.mark.parametrize("split", SPLITS)
def test_every_caption_occurs_with_both_labels(split):
    labels = defaultdict(set)
    for meant in scenes(split):
        labels[caption(meant)].add(meant.label)
    assert len(labels) > 30 and all(found == {0, 1} for found in labels.values())


def test_the_label_by_hand():
    """Hateful: cheering at harm, scolding at a welcome."""
    for meant in scenes("train", 8):
        cheers = lines(meant, "plain")[0] in CHEERS
        assert cheers != (lines(meant, "plain")[0] in SCOLDS)
        assert meant.label == ((meant.act in HARMS and cheers) or (meant.act in WELCOMES and not cheers))


@pytest.mark.parametrize("split", SPLITS)
def test_every_group_act_and_wording_occurs(split):
    found = scenes(split)
    assert {meant.group for meant in found} == set(GROUPS)
    assert {meant.act for meant in found} == set(HARMS) | set(WELCOMES)
    assert {lines(meant, "plain")[0] for meant in found} == set(CHEERS + SCOLDS)
    assert {meant.second for meant in found} == set(range(len(SECOND) + 1))


def test_splits_differ():
    """No picture is in two splits; each split has a second line of its own."""
    pictures = {split: {draw(meant, "plain").tobytes() for meant in scenes(split, 40)} for split in SPLITS}
    assert len(set.union(*pictures.values())) == 3 * 40
    meanings = {split: [(m.group, m.act, caption(m)) for m in scenes(split, 40)] for split in SPLITS}
    assert meanings["train"] != meanings["val"] != meanings["test"] != meanings["train"]
    for split in SPLITS:
        words = {lines(meant, "plain")[1] for meant in scenes(split)}
        assert words & set(OWN.values()) == {OWN[split]}


def test_the_shifted_style_means_the_same_in_other_pictures_and_words():
    found = scenes("test")
    plain, shifted = ({lines(meant, style) for meant in found} for style in ("plain", "shifted"))
    for line in (0, 1):
        # A caption of one line is one line in both styles.
        assert not ({pair[line] for pair in plain} & {pair[line] for pair in shifted}) - {""}
    for meant in found[:12]:
        assert draw(meant, "plain").tobytes() != draw(meant, "shifted").tobytes()


def test_no_two_pictures_of_a_split_are_alike():
    """Not even those of one group and act: position, scale and colours vary with the meme's number."""
    found = scenes("train", 200)
    assert len({draw(meant, "plain").tobytes() for meant in found}) == len(found)


def test_rows(tmp_path):
    """Ids, paths, sizes and columns of what the reader passes on; the same bytes when drawn twice."""
    first, again = (list(rows("val", 8, "plain", tmp_path / name)) for name in ("a", "b"))
    assert [row["id"] for row in first] == [f"val-{number:04d}" for number in range(8)]
    for row, other in zip(first, again, strict=True):
        assert row["image"] == tmp_path / "a" / f"{row['id']}.png"
        with Image.open(row["image"]) as picture:
            assert (picture.size, picture.mode, picture.format) == ((SIZE, SIZE), "RGB", "PNG")
        assert digest(row["image"]) == digest(other["image"])
        meant = scene(row["id"])
        assert (row["text"], row["label"], row["groups"]) == (caption(meant), meant.label, [meant.group])
        assert row["text"] == row["text"].strip().lower()
    assert len({digest(row["image"]) for row in first}) == 8


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_meme_does_not_depend_on_how_many_are_drawn(tmp_path):
    few, many = (list(rows("test", count, "shifted", tmp_path / str(count))) for count in (2, 6))
    for row, other in zip(few, many, strict=False):
        assert row | {"image": None} == other | {"image": None}
        assert digest(row["image"]) == digest(other["image"])


@pytest.mark.parametrize("id", ["01235", "train", "train-", "dev-0001", "train-1.5", "train-²", "../train-0001", ""])
def test_an_id_of_another_dataset(id):
    with pytest.raises(InputError, match="is not a pictogram: the demo's base model knows pictograms only"):
        scene(id)
