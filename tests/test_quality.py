"""Counts worked out by hand on two small splits."""

import polars as pl

from memedynamics import intake, quality


def data(split, rows):
    """A `data` table from (id, picture's digest, text, label)."""
    values = [("d", split, i, "x.png", sha, 1, 1, text, label, []) for i, sha, text, label in rows]
    return pl.DataFrame(values, intake.DATA, orient="row")


TRAIN = data("train", [("1", "A", "Zorps  wave", 1), ("2", "A", "zorps wave", 0), ("3", "B", "", 0), ("4", "C", "", 0)])
VAL = data("val", [("4", "D", " ZORPS WAVE ", 1), ("5", "B", "new", 0)])
REJECTED = pl.DataFrame(
    [("d", "train", 7, None, "f", "picture is missing: a"), ("d", "train", 8, None, "f", "picture is missing: b")],
    intake.REJECTED,
    orient="row",
)


def summary(published):
    splits = {"train": TRAIN, "val": VAL, "test": data("test", [])}
    found = quality.summary("d", splits, REJECTED, published)
    return {(row["split"], row["statistic"]): (row["value"], row["expected"]) for row in found.iter_rows(named=True)}


def test_counts_by_hand():
    """Train: picture A twice; "zorps wave" twice, with both labels; empty texts are no texts.

    Val: id 4 is in train, "ZORPS WAVE" is train's text, picture B is train's: one row of two each.
    """
    found = summary({"train": (10, 4)})
    train = {"rows": (4, 10), "hateful": (1, 4), "hateful_share": (0.25, 0.4), "rejected": (2, None)}
    train |= {"duplicate_images": (1, None), "duplicate_texts": (1, None), "texts_with_both_labels": (1, None)}
    train |= {"rejected: picture is missing": (2, None)}
    assert {name: value for (split, name), value in found.items() if split == "train"} == train
    shared = {name: value[0] for (split, name), value in found.items() if split == "train+val"}
    assert shared == {f"shared_{what}{end}": n for what in quality.SHARED for end, n in (("", 1), ("_share", 0.5))}


def test_what_is_not_published_is_not_expected_and_empty_splits_say_nothing():
    found = summary({"val": (2, None)})
    assert found["val", "rows"] == (2, 2) and found["val", "hateful"] == (1, None)
    assert found["train", "rows"] == (4, None)
    assert {split for split, _ in found} == {"train", "val", "train+val"}
