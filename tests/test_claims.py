"""Claims by hand: p from an interval, all seeds or none, Holm over all, relations across runs."""

import math

import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from memedynamics import claims
from memedynamics.claims import Difference, Evidence


def difference(value, error):
    return Difference(value, value - 1.959964 * error, value + 1.959964 * error)


@pytest.mark.parametrize(("z", "p"), [(1.959964, 0.05), (2.575829, 0.01), (0.0, 1.0), (-1.959964, 0.05)])
def test_p_of_an_interval(z, p):
    """value = z standard errors: p = 2(1 − Φ(|z|))."""
    assert claims.p_value(difference(0.3 * z, 0.3)) == pytest.approx(p, abs=1e-6)


def test_p_without_width_or_interval():
    assert claims.p_value(Difference(0.0, 0.0, 0.0)) == 1
    assert claims.p_value(Difference(0.1, 0.1, 0.1)) == 0
    assert math.isnan(claims.p_value(Difference(0.1, math.nan, math.nan)))


def test_a_claim_takes_the_weakest_seed():
    """z = 4 and z = 2: p is that of 2, 0.0455."""
    found = claims.evidence([difference(4, 1), difference(2, 1)], [5, 4], [1, 2])
    assert found.p == pytest.approx(2 * norm.sf(2)) and (found.sign, found.seeds) == (1, 2)


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
    found = [Evidence(0.04, 1, 2), Evidence(0.01, -1, 2), Evidence(0.03, 1, 2)]
    p, said = claims.verdicts(found, [("yes", "no")] * 3)
    assert p == pytest.approx([0.06, 0.03, 0.06])
    assert said == [claims.UNDECIDED, "no", claims.UNDECIDED]


def test_seeds_that_disagree_one_seed_and_nothing_at_all():
    found = [Evidence(1e-9, 0, 2), Evidence(1e-9, 1, 1), Evidence(math.nan, 0, 0)]
    p, said = claims.verdicts(found, [("yes", "no")] * 3)
    assert p[:2] == pytest.approx([2e-9, 2e-9]) and np.isnan(p[2])
    assert said == [claims.UNDECIDED, claims.ONE_SEED, claims.UNDECIDED]


def test_under_the_null_a_true_claim_is_rare():
    """Two seeds, ten claims, no difference anywhere: Holm keeps the share of studies with any verdict below 5 %."""
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        drawn = random.normal(size=(10, 2))
        found = [claims.evidence([difference(z, 1) for z in pair], pair, [0, 0]) for pair in drawn]
        wrong += any(said == "yes" or said == "no" for said in claims.verdicts(found, [("yes", "no")] * 10)[1])
    assert wrong / 300 < 0.05


def test_relation_equals_scipy_and_goes_through_all_orders():
    """n = 5 in full agreement: 2 of the 5! = 120 orders are as extreme, p = 1/60."""
    found = claims.relation([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    assert (found.rho, found.n) == (pytest.approx(1.0), 5) and found.p == pytest.approx(2 / 120)
    x, y = [3, 1, 4, 1, 5, 9], [2, 7, 1, 8, 2, 8]
    assert claims.relation(x, y).rho == pytest.approx(spearmanr(x, y).statistic)


def test_relation_of_too_few_or_equal_runs_is_none():
    for x, y in (([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4])):
        found = claims.relation(x, y)
        assert math.isnan(found.rho) and math.isnan(found.p) and found.n == len(x)
