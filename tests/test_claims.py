"""Claims by hand: p from an interval, all seeds or none, Holm over all that can be decided, relations across runs."""

import math

import numpy as np
import pytest
from scipy.stats import norm, spearmanr, t

from memedynamics import claims, stats
from memedynamics.claims import Difference, Evidence

MANY = 10**6


def difference(value, error, clusters=MANY):
    return Difference(value, value - 1.959964 * error, value + 1.959964 * error, clusters)


@pytest.mark.parametrize(("z", "p"), [(1.959964, 0.05), (2.575829, 0.01), (0.0, 1.0), (-1.959964, 0.05)])
def test_p_of_an_interval(z, p):
    """value = z standard errors, many clusters: p = 2(1 − Φ(|z|))."""
    assert claims.p_value(difference(0.3 * z, 0.3)) == pytest.approx(p, abs=1e-5)


def test_p_of_few_clusters():
    """Four: the error grows by √(4/3), and t has 3 degrees of freedom. z = 4: t = 3.46, p = .0405."""
    assert claims.p_value(difference(4, 1, 4)) == pytest.approx(2 * t.sf(4 / math.sqrt(4 / 3), 3))
    assert claims.p_value(difference(4, 1, 4)) == pytest.approx(0.0405, abs=1e-3)


@pytest.mark.parametrize("clusters", [4, 12, 40])
def test_p_of_a_true_null_is_uniform_enough(clusters):
    """Of the bootstrap interval of the mean of normal clusters without an effect, at most 7 % give p < .05."""
    random, found = np.random.default_rng(1), []
    for trial in range(400):
        values = random.normal(size=clusters)
        weights = stats.resample_weights(clusters, 400, str(trial))
        low, high = stats.interval(weights @ values / clusters)
        found.append(claims.p_value(Difference(values.mean(), low, high, clusters)) < 0.05)
    assert np.mean(found) < 0.07


@pytest.mark.parametrize(
    "none", [Difference(0.0, 0.0, 0.0, 50), Difference(0.1, 0.1, 0.1, 50), Difference(0.1, math.nan, math.nan, 50)]
)
def test_no_p_without_width_or_interval(none):
    """All prompts alike: what an interval would be, nobody knows."""
    assert math.isnan(claims.p_value(none))
    assert math.isnan(claims.p_value(difference(1, 1, 1)))


def test_a_claim_takes_the_weakest_seed():
    """z = 4 and z = 2: p is that of 2, 0.0455."""
    found = claims.evidence([difference(4, 1), difference(2, 1)], [5, 4], [1, 2])
    assert found.p == pytest.approx(2 * norm.sf(2), abs=1e-5)
    assert (found.sign, found.reason, found.agree) == (1, None, True)


@pytest.mark.parametrize("order", [1, -1])
def test_one_seed_without_a_p_leaves_it_undecided_whichever_it_is(order):
    for missing in (None, Difference(0.1, math.nan, math.nan, 50)):
        found = claims.evidence([difference(9, 1), missing][::order], [9, 9], [1, 1])
        assert math.isnan(found.p) and found.reason == claims.NO_INTERVAL


@pytest.mark.parametrize(
    ("ours", "theirs", "sign", "agree"),
    [
        ([5, 4], [1, 2], 1, True),
        ([1, 2], [4, 5], -1, True),
        ([5, 2], [1, 3], 0, False),
        ([5, 4], [4, 1], 0, False),
        ([5, 4], [4.5, 1], 0, False),
        ([2, 2], [2, 2], 0, True),
    ],
)
def test_all_runs_of_one_must_lie_on_one_side(ours, theirs, sign, agree):
    """5, 2 against 1, 3: paired by seed 4 and −1. 5, 4 against 4.5, 1: .5 and 3, but crossed 4 − 4.5 < 0. Equal values
    point nowhere, and agree in that.
    """
    paired = [difference(a - b, 0.01) for a, b in zip(ours, theirs, strict=True)]
    found = claims.evidence(paired, ours, theirs)
    assert (found.sign, found.agree) == (sign, agree)
    assert found.reason == (None if agree else claims.SEEDS) and np.isfinite(found.p)


def test_a_number_that_only_pairs_have_is_judged_by_its_differences():
    assert claims.evidence([difference(9, 1), difference(8, 1)], [], [])[1:] == (1, None, True)
    assert claims.evidence([difference(9, 1), difference(-8, 1)], [], [])[1:] == (0, claims.SEEDS, False)


def test_one_seed_has_none_to_agree_with():
    assert claims.evidence([difference(9, 1)], [9, 8], [1])[1:] == (1, claims.ONE_SEED, None)


def test_verdicts_under_holm():
    """p .01, .03, .04 times 3, 2, 1 and never falling: .03, .06, .06; only the first is decided."""
    found = [Evidence(0.04, 1), Evidence(0.01, -1), Evidence(0.03, 1)]
    p, said = claims.verdicts(found, [("yes", "no")] * 3)
    assert p == pytest.approx([0.06, 0.03, 0.06])
    assert said == [claims.UNDECIDED, "no", claims.UNDECIDED]


def test_every_reason_not_to_decide_is_its_own():
    """Of p = 1e-9 for all: seeds that disagree are a test that fails; the others never were one. The last is the only
    other test, so that Holm's factor is 2.
    """
    one = claims.evidence([difference(9, 1)], [9], [1])
    few = claims.evidence([difference(9, 0.1, 9)] * 2, [9, 9], [1, 1])
    seeds = claims.evidence([difference(9, 1), difference(-9, 1)], [9, 1], [0, 10])
    methods = claims.relation(range(8), range(8), list("aabbccdd")).evidence
    nothing = Evidence(math.nan, 0)
    p, said = claims.verdicts([one, few, methods, nothing, seeds, Evidence(0.02, 1)], [("yes", "no")] * 6)
    assert np.isnan(p[:4]).all() and p[4] < 1e-9 and p[5] == pytest.approx(0.02)
    assert said == [claims.ONE_SEED, claims.FEW, claims.FEW_METHODS, claims.UNDECIDED, claims.SEEDS, "yes"]


def test_what_could_never_be_decided_costs_the_others_no_power():
    """p = .03 alone stays .03; beside a relation of three methods, a single seed and nine clusters it still does."""
    ruled_out = [
        claims.relation(range(6), range(6), list("aabbcc")).evidence,
        claims.evidence([difference(2.5, 1)], [9], [1]),
        claims.evidence([difference(2.5, 1, 9)] * 2, [9, 9], [1, 1]),
    ]
    p, said = claims.verdicts([Evidence(0.03, 1), *ruled_out], [("yes", "no")] * 4)
    assert p[0] == pytest.approx(0.03) and said[0] == "yes"


def test_relation_equals_scipy():
    x, y = [3, 1, 4, 1, 5, 9], [2, 7, 1, 8, 2, 8]
    found = claims.relation(x, y, ["a", "a", "b", "b", "c", "c"])
    assert found.rho == pytest.approx(spearmanr(x, y).statistic) and found.n == 6


@pytest.mark.parametrize("turned", [1, -1])
def test_p_of_a_relation_is_over_methods_not_seeds(turned):
    """Six methods in full agreement: 2 of the 6! orders are as extreme, 1/360; three seeds each change nothing."""
    methods = [name for name in "abcdef" for _ in range(3)]
    x = np.array([i + 0.01 * k for i in range(6) for k in range(3)])
    found = claims.relation(x, turned * x, methods)
    assert (found.rho, found.n, found.methods) == (pytest.approx(turned), 18, 6)
    assert found.evidence == Evidence(pytest.approx(2 / 720), turned)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_too_few_methods_are_the_reason_however_many_seeds(count):
    """ρ and its interval stand; 2/5! times the three relations of a study is .05."""
    methods = [name for name in "abcde"[:count] for _ in range(3)]
    y = [1, 0, *range(2, 3 * count)]
    found = claims.relation(range(3 * count), y, methods)
    assert math.isnan(found.evidence.p) and found.evidence.reason == claims.FEW_METHODS
    assert found.rho == pytest.approx(spearmanr(range(3 * count), y).statistic) and found.low < found.rho < found.high
    assert 3 * 2 / math.factorial(count) >= claims.ALPHA - 1e-12


def test_above_eight_methods_orders_are_drawn():
    """Nine in full agreement: of 10,000 orders only the one found, and .06 others expected. No relation: p is large."""
    found = claims.relation(range(9), range(9), list("abcdefghi"))
    assert found.evidence.p <= 4 / claims.ORDERS and found.evidence.sign == 1
    none = claims.relation(range(9), [4, 9, 2, 3, 5, 7, 8, 1, 6], list("abcdefghi"))
    assert none.evidence.p > 0.3


def test_runs_that_point_another_way_than_methods_point_nowhere():
    """Means a–f of x: 0 … 5. y rises with x over the methods, but one method of many runs falls steeply inside."""
    own = np.linspace(-40, 40, 41)
    x = np.concatenate([np.arange(5.0), 5 + own])
    y = np.concatenate([np.arange(5.0), 5 - own])
    found = claims.relation(x, y, [*"abcde", *["f"] * 41])
    assert found.rho < 0 and found.evidence.p == pytest.approx(2 / 720) and found.evidence.sign == 0


def test_methods_of_equal_means_have_no_p():
    """Every method's runs are 0 and 1, the other way round in y: ρ over runs is −1, over methods there is none."""
    found = claims.relation([0, 1] * 6, [1, 0] * 6, [name for name in "abcdef" for _ in range(2)])
    assert found.rho == pytest.approx(-1) and math.isnan(found.evidence.p)


def test_relation_of_too_few_or_equal_runs_is_none():
    for x, y in (([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4])):
        found = claims.relation(x, y, list("abcd"[: len(x)]))
        assert math.isnan(found.rho) and math.isnan(found.evidence.p) and found.n == len(x)
