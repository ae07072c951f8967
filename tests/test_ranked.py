"""Who leads and whether that is sure: every seed's interval, all seeds crossed, and never with one seed."""

import polars as pl
import pytest

from memedynamics import claims, ranked
from memedynamics.wording import PLAIN

SCHEMA = {"method": pl.String, "seed": pl.Int32, "versus": pl.String}
SCHEMA |= dict.fromkeys(("value", "ci_low", "ci_high"), pl.Float64) | {"n": pl.Int64}


def frame(runs, width=0.1, versus=None):
    """Rows of (method, seed, value), whose intervals reach `width` to either side."""
    found = [
        {"method": m, "seed": s, "value": v, "ci_low": v - width, "ci_high": v + width, "n": 50, "versus": versus}
        for m, s, v in runs
    ]
    return pl.DataFrame(found, schema=SCHEMA)


APART = [("sft", 1, 3.0), ("sft", 2, 3.1), ("dpo", 1, 1.0), ("dpo", 2, 1.1)]


@pytest.mark.parametrize(
    ("runs", "width", "reason"),
    [
        (APART, 0.1, ""),
        (APART, 1.5, claims.UNDECIDED),  # 3.0 − 1.5 < 1.0 + 1.5
        ([run for run in APART if run[1] == 1], 0.1, claims.ONE_SEED),
        ([*APART[:3], ("dpo", 2, 3.05)], 0.01, claims.SEEDS),  # seed 2 of dpo beats seed 1 of sft
        ([("sft", 1, 3.0), ("dpo", 2, 1.0)], 0.1, "not decided: no seed in common"),
        ([(method, seed, 1.0) for method, seed, _ in APART], 0.1, claims.UNDECIDED),
        (APART, 0.0, claims.NO_INTERVAL),
    ],
)
def test_a_lead(runs, width, reason):
    assert ranked.verdict(frame(runs, width), "sft", "dpo") == reason
    assert ranked.verdict(frame([(m, s, -v) for m, s, v in runs], width), "sft", "dpo", upward=False) == reason


def test_without_intervals_nothing_is_told_apart():
    rows = frame(APART).with_columns(ci_low=pl.lit(None, pl.Float64))
    assert ranked.verdict(rows, "sft", "dpo") == claims.NO_INTERVAL


@pytest.mark.parametrize(("order", "sign"), [(("sft", "dpo"), 1), (("dpo", "sft"), -1)])
def test_paired_differences_count_whichever_way_round_they_are(order, sign):
    """Wide intervals of the levels, narrow ones of the difference: 2 ± 0.5."""
    rows, (one, other) = frame(APART, 1.5), order
    gaps = frame([(one, 1, sign * 2.0), (one, 2, sign * 2.0)], 0.5, other)
    assert ranked.verdict(rows, "sft", "dpo", gaps) == ""
    assert ranked.verdict(rows, "sft", "dpo", gaps.with_columns(ci_low=-9.0, ci_high=9.0)) == claims.UNDECIDED


def test_no_paired_difference_is_no_interval_not_no_difference():
    gaps = frame([("sft", 1, 2.0), ("sft", 2, 2.0)], 0.5, "grpo")
    assert ranked.verdict(frame(APART), "sft", "dpo", gaps) == claims.NO_INTERVAL


@pytest.mark.parametrize(("items", "reason"), [(9, claims.FEW), (10, "")])
def test_under_ten_items_no_side_is_claimed(items, reason):
    gaps = frame([("dpo", 1, -2.0), ("dpo", 2, -2.0)], 0.5, "sft")
    few = pl.col("n").clip(upper_bound=items)
    assert ranked.verdict(frame(APART).with_columns(few), "sft", "dpo") == reason
    assert ranked.verdict(frame(APART), "sft", "dpo", gaps.with_columns(few)) == reason
    assert ranked.sided(frame(APART).with_columns(few)) == dict.fromkeys(("sft", "dpo"), reason or 1)
    one_run = frame(APART).with_columns(n=pl.when(method="dpo", seed=2).then(items).otherwise(50))
    assert ranked.verdict(one_run, "sft", "dpo") == reason


def test_the_lead_names_what_is_sure_and_what_is_not():
    rows = frame([*APART, ("grpo", 1, 2.95), ("grpo", 2, 3.3)])
    assert ranked.lead(rows) == (
        "in every seed GRPO lies above DPO (intervals apart, uncorrected; the summary has the corrected claims); "
        "not decided: seeds disagree (GRPO against SFT)"
    )
    assert ranked.lead(rows, upward=False).startswith("in every seed DPO lies below SFT and GRPO")
    assert ranked.lead(frame(APART[:2])) == ""


def test_a_ranking_tells_both_ends_with_intervals_seeds_and_n():
    told = ranked.ranking(frame(APART), PLAIN, "{} is first, {}", "{} last, {}")
    assert told == (
        "SFT is first, 3 [2.9, 3.1] and 3.1 [3, 3.2] (seeds 1 and 2), and "
        "DPO last, 1 [0.9, 1.1] and 1.1 [1, 1.2] (seeds 1 and 2); n = 50 prompts"
    )
    assert ranked.ranking(frame(APART[:1]), PLAIN, "{}", "{}") == "SFT: 3 [2.9, 3.1]; n = 50 prompts"
    assert ranked.ranking(frame([]), PLAIN, "{}", "{}") == ""
    alike = frame([(method, 1, 1.0) for method in ("sft", "dpo")])
    assert ranked.ranking(alike, PLAIN, "{}", "{}") == "alike under SFT and DPO, 1 [0.9, 1.1]; n = 50 prompts"


@pytest.mark.parametrize(
    ("values", "width", "side"),
    [
        ((1.0, 2.0), 0.5, 1),
        ((-1.0, -2.0), 0.5, -1),
        ((1.0, 2.0), 1.5, claims.UNDECIDED),
        ((1.0, -2.0), 0.5, claims.SEEDS),
        ((1.0,), 0.5, claims.ONE_SEED),
    ],
)
def test_a_side_of_zero(values, width, side):
    rows = frame([("sft", seed, value) for seed, value in enumerate(values, 1)], width)
    assert ranked.sided(rows) == {"sft": side}


def test_signs_in_words():
    rows = frame(
        [("sft", 1, 1.0), ("sft", 2, 1.0), ("dpo", 1, -1.0), ("dpo", 2, -1.0), ("em", 1, 0.02), ("em", 2, 0.05)]
    )
    assert (
        ranked.signs(rows, "up", "down")
        == "up: SFT (uncorrected); down: DPO (uncorrected); not decided by this data (EM)"
    )
