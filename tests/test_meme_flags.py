"""What the memes browser filters by, on three memes written out by hand."""

import numpy as np

from memedynamics.meme_flags import (
    BROKEN,
    DISAGREES,
    FIXED_ALONE,
    FORMAT_LOST,
    RIGHT,
    WELL_FORMED,
    flags,
    peers,
    written,
)

END = [("sft", 1, 1.0), ("sft", 2, 1.0), ("grpo", 1, 1.0), ("grpo", 2, 1.0), ("theirs", 0, 1.0)]
RUNS = [("base", None, 0.0), *END]
T, F = True, False


def test_peers_are_the_other_methods_of_the_seed_and_what_has_no_seed():
    assert peers(RUNS, 1) == [3, 5] and peers(RUNS, 4) == [2, 5]
    assert peers(RUNS, 5) == [1, 2, 3, 4]  # it stands beside every seed
    assert peers(RUNS[:2], 1) == []


def test_peers_are_at_the_same_milestone():
    policies = [RUNS[0], ("sft", 1, 0.5), ("sft", 1, 1.0), ("grpo", 1, 0.5), ("grpo", 1, 1.0), ("theirs", 0, 1.0)]
    assert peers(policies, 1) == [3] and peers(policies, 2) == [4, 5] and peers(policies, 5) == [2, 4]


def test_fixed_broken_and_disagreeing():
    """Meme 0: wrong at base, right by grpo at seed 1 alone. 1: right at base, wrong by sft at seed 2. 2: all wrong."""
    right = np.array([[F, T, F], [F, T, F], [F, F, F], [T, T, F], [F, T, F], [F, T, F]])
    found = flags(RUNS, right, np.ones_like(right), np.ones_like(right))
    alone = (found & FIXED_ALONE) > 0
    assert alone.tolist() == [[F] * 3] * 3 + [[T, F, F]] + [[F] * 3] * 2
    assert ((found & BROKEN) > 0).tolist() == [[F] * 3, [F] * 3, [F, T, F], *[[F] * 3] * 3]
    # Of seed 1 about meme 0: sft against grpo. Of seed 2 about meme 1. `theirs` is a peer of both.
    disagree = ((found & DISAGREES) > 0).tolist()
    assert disagree == [[F] * 3, [T, F, F], [F, T, F], [T, F, F], [F, T, F], [T, T, F]]
    assert ((found & RIGHT) > 0).tolist() == right.tolist()


def test_two_methods_that_fix_are_neither_alone():
    right = np.array([[F], [T], [F], [T], [F], [F]])
    assert not (flags(RUNS, right, right, np.ones_like(right)) & FIXED_ALONE).any()


def test_format_lost_is_against_the_base():
    formed = np.array([[T, F], [F, F], [T, T], [T, T], [F, F], [T, T]])
    found = flags(RUNS, np.zeros_like(formed), formed, np.ones_like(formed))
    assert ((found & FORMAT_LOST) > 0).tolist() == [[F, F], [T, F], [F, F], [F, F], [T, F], [F, F]]
    assert ((found & WELL_FORMED) > 0).tolist() == formed.tolist()


def test_what_was_not_answered_has_no_flag_and_fixes_nothing():
    right = np.array([[F], [T], [F], [F], [F], [F]])
    answered = np.ones_like(right)
    answered[1] = False
    found = flags(RUNS, right, right, answered)
    assert not found.any()
    assert written(found[1], answered[1]) == " " and written(found[3], answered[3]) == "0"


def test_an_unanswered_base_has_neither_been_fixed_nor_broken():
    right, answered = np.array([[F], [T]]), np.array([[F], [T]])
    found = flags(RUNS[:2], right, right, answered)
    assert found[1] == RIGHT | WELL_FORMED
