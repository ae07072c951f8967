"""Claims by hand: p from an interval, all seeds or none, Holm over all, relations across runs."""

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
    assert found.p == pytest.approx(2 * norm.sf(2), abs=1e-5) and (found.sign, found.reason) == (1, None)


@pytest.mark.parametrize("order", [1, -1])
def test_one_seed_without_a_p_leaves_it_undecided_whichever_it_is(order):
    for missing in (None, Difference(0.1, math.nan, math.nan, 50)):
        found = claims.evidence([difference(9, 1), missing][::order], [9, 9], [1, 1])
        assert math.isnan(found.p) and found.reason == claims.NO_INTERVAL


@pytest.mark.parametrize(
    ("ours", "theirs", "sign"),
    [([5, 4], [1, 2], 1), ([1, 2], [4, 5], -1), ([5, 2], [1, 3], 0), ([5, 4], [4, 1], 0)],
)
def test_all_runs_of_one_must_lie_on_one_side(ours, theirs, sign):
    """5, 2 against 1, 3: paired by seed 4 and −1; crossed 2 − 3 < 0. Equal values point nowhere."""
    paired = [difference(a - b, 0.01) for a, b in zip(ours, theirs, strict=True)]
    assert claims.evidence(paired, ours, theirs).sign == sign


def test_verdicts_under_holm():
    """p .01, .03, .04 times 3, 2, 1 and never falling: .03, .06, .06; only the first is decided."""
    found = [Evidence(0.04, 1), Evidence(0.01, -1), Evidence(0.03, 1)]
    p, said = claims.verdicts(found, [("yes", "no")] * 3)
    assert p == pytest.approx([0.06, 0.03, 0.06])
    assert said == [claims.UNDECIDED, "no", claims.UNDECIDED]


def test_seeds_that_disagree_one_seed_few_clusters_and_nothing_at_all():
    one = claims.evidence([difference(9, 1)], [9], [1])
    few = claims.evidence([difference(9, 0.1, 9)] * 2, [9, 9], [1, 1])
    p, said = claims.verdicts([Evidence(1e-9, 0), one, few, Evidence(math.nan, 0)], [("yes", "no")] * 4)
    assert (p[:3] < 0.05).all() and np.isnan(p[3])
    assert said == [claims.UNDECIDED, claims.ONE_SEED, claims.FEW, claims.UNDECIDED]


def test_relation_equals_scipy():
    x, y = [3, 1, 4, 1, 5, 9], [2, 7, 1, 8, 2, 8]
    found = claims.relation(x, y, ["a", "a", "b", "b", "c", "c"])
    assert found.rho == pytest.approx(spearmanr(x, y).statistic) and found.n == 6


def test_p_of_a_relation_is_over_methods_not_seeds():
    """Five methods in full agreement: 2 of the 5! orders are as extreme, 1/60; three seeds each change nothing."""
    methods = [name for name in "abcde" for _ in range(3)]
    x = [i + 0.01 * k for i in range(5) for k in range(3)]
    found = claims.relation(x, x, methods)
    assert (found.rho, found.n) == (pytest.approx(1.0), 15) and found.p == pytest.approx(2 / 120)
    assert claims.relation(x[:12], x[:12], methods[:12]).p == pytest.approx(2 / 24)


def test_relation_of_too_few_or_equal_runs_is_none():
    for x, y in (([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4])):
        found = claims.relation(x, y, list("abcd"[: len(x)]))
        assert math.isnan(found.rho) and math.isnan(found.p) and found.n == len(x)
