"""The plan of a scoring job: pairs are marked on base samples alone, extra texts are scored once beside them."""

import polars as pl
import pytest

from memedynamics import score_plan
from memedynamics.errors import InputError
from memedynamics.milestones import scored

PROBES = {
    "probe_kind": pl.String, "dataset": pl.String, "split": pl.String, "id": pl.String, "sample": pl.Int16,
    "token_ids": pl.List(pl.Int32), "correct": pl.Boolean, "format_ok": pl.Boolean, "reward": pl.Float64,
}  # fmt: skip


def probes(*rows: tuple) -> pl.DataFrame:
    """Rows of (probe_kind, split, id, sample, correct, format_ok)."""
    full = [
        (kind, "memes", split, id, sample, [sample, 9], right, ok, float(right))
        for kind, split, id, sample, right, ok in rows
    ]
    return pl.DataFrame(full, schema=PROBES, orient="row")


FIXED = probes(
    ("base_sample", "val", "a", 0, False, False),
    ("base_sample", "val", "a", 1, True, True),
    ("base_sample", "val", "a", 2, False, True),
    ("base_sample", "train", "a", 0, True, True),  # the same id in another split: all right, so no pair
    ("correct_other", "val", "a", 1, True, True),  # sample numbers of other kinds name other texts
    ("permuted", "val", "a", 2, False, False),
)


def test_pairs_stand_on_base_samples_alone() -> None:
    """Chosen is sample 1, rejected 2 (well-formed but wrong) and not 0 (badly formed)."""
    found = score_plan.with_pairs(FIXED)
    assert found.columns == score_plan.COLUMNS and len(found) == len(FIXED)
    paired = found.drop_nulls("chosen_sample")
    assert paired.select("probe_kind", "split", "chosen_sample", "rejected_sample").unique().rows() == [
        ("base_sample", "val", 1, 2)
    ]
    assert paired["sample"].to_list() == [0, 1, 2]


def test_a_prompts_texts_of_all_kinds_are_one_batch_item() -> None:
    """So that its picture and prompt are read once for all of them; every text occurs once."""
    (fixed,) = score_plan.passes(FIXED, None, [0.5, 1.0], False, "paired")
    found = [rows for batch in score_plan.batches([fixed], 8) for rows in batch.prompts]
    assert [rows.select("split", "probe_kind", "sample").rows() for rows in found] == [
        [("train", "base_sample", 0)],
        [("val", "base_sample", 0), ("val", "base_sample", 1), ("val", "base_sample", 2)]
        + [("val", "correct_other", 1), ("val", "permuted", 2)],
    ]


def test_the_order_of_texts_does_not_matter() -> None:
    shuffled = FIXED.sample(fraction=1, shuffle=True, seed=1)
    plans = [
        score_plan.batches(score_plan.passes(frame, None, [1.0], False, "paired"), 8) for frame in (FIXED, shuffled)
    ]
    for one, other in zip(*plans, strict=True):
        assert all(a.equals(b) for a, b in zip(one.prompts, other.prompts, strict=True))


def test_scored_are_the_milestones_a_run_has_but_its_own_start() -> None:
    trained, outside = {"0": 0, "0.333333": 2, "1": 6}, {"0": 0, "1": None}
    fractions = [0.0, 1 / 3, 0.5, 1.0]
    assert scored(fractions, {"kind": "adapter", "steps": trained}) == [1 / 3, 1.0]
    assert scored(fractions, {"kind": "full", "steps": outside}) == [1.0]
    assert scored(fractions, {"kind": "base", "steps": {"0": 0}}) == [0.0]


def test_against_its_parent_a_run_is_measured_on_what_the_parent_drew_at_its_end() -> None:
    """The run answers meme a at both milestones and b at the end alone, so a's last answers of the parent are kept."""
    parent = probes(
        ("", "val", "a", 0, True, True), ("", "val", "a", 1, True, True),
        ("", "val", "b", 0, True, True), ("", "val", "a", 0, False, True),
    ).with_columns(fraction=pl.Series([1.0, 1.0, 1.0, 0.5]))  # fmt: skip
    own = probes(("", "val", "a", 0, True, True), ("", "val", "a", 0, True, True), ("", "val", "b", 0, True, True))
    own = own.with_columns(fraction=pl.Series([0.5, 1.0, 1.0]))
    found = score_plan.of_parent(parent, own)
    assert found.select("probe_kind", "id", "sample", "correct").rows() == [
        ("parent_sample", "a", 0, True), ("parent_sample", "a", 1, True),
    ]  # fmt: skip
    (fixed, *_) = score_plan.passes(found, own, [0.5, 1.0], False, "paired")
    assert len(fixed.rows) == 2 and fixed.rows["chosen_sample"].is_null().all()
    with pytest.raises(InputError, match="answered none of the same memes"):
        score_plan.of_parent(parent, own.with_columns(id=pl.lit("z")))
