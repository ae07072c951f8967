"""Calibration and selective risk by hand, against brute force over repeated items, and under perfect calibration."""

import numpy as np
import pytest

from memedynamics import calibration, stats

# Confidence .9 right, .8 wrong, .7 right, .6 wrong.
SURE = np.array([0.9, 0.8, 0.7, 0.6])
WRONG = np.array([False, True, False, True])


def test_decisions():
    q = np.array([0.2, 0.5, 0.9])
    assert calibration.confidence(q) == pytest.approx([0.8, 0.5, 0.9])
    assert calibration.wrong(q, np.array([1, 1, 0])).tolist() == [True, False, True]


def test_ece_by_hand():
    """One item a bin: (.1 + .8 + .3 + .6)/4 = .45. Two bins: |1/2 - .85|·½ + |1/2 - .65|·½ = .175 + .075 = .25."""
    assert calibration.ece(SURE, ~WRONG) == pytest.approx([0.45])
    assert calibration.equal_mass(SURE, 2).tolist() == [1, 1, 0, 0]
    assert calibration.ece(SURE, ~WRONG, bins=2) == pytest.approx([0.25])
    # Weights 2, 0, 1, 1: |2·.1|/4 + |.3 - .6|/4 = .05 + .075.
    assert calibration.ece(SURE, ~WRONG, np.array([[2.0, 0, 1, 1]]), bins=2) == pytest.approx([0.125])


def test_bins_have_equal_mass():
    sure = np.random.default_rng(0).random(1003)
    counts = np.bincount(calibration.equal_mass(sure, 10))
    assert len(counts) == 10 and counts.max() - counts.min() <= 1
    assert set(np.bincount(calibration.equal_mass(np.full(25, 0.9), 10))) == {2, 3}


def test_a_calibrated_model_is_within_its_null_and_an_overconfident_one_is_not():
    rng = np.random.default_rng(1)
    sure = 0.5 + rng.random(500) / 2
    null = calibration.calibrated_ece(sure, 400, "x")
    assert (calibration.calibrated_ece(sure, 400, "x") == null).all()
    # About sqrt(2·mean c(1-c)/(pi·50)) a bin, c uniform on [½, 1]: mean c(1-c) = 1/6.
    assert null.mean() == pytest.approx(np.sqrt(2 / 6 / np.pi / 50), rel=0.2)
    assert calibration.ece(sure, rng.random(500) < sure)[0] < np.quantile(null, 0.999)
    assert calibration.ece(sure, rng.random(500) < sure - 0.2)[0] > null.max()


def test_risk_coverage_by_hand():
    """Risks of the 1, 2, 3, 4 surest: 0, 1/2, 1/3, 1/2; AURC their mean, 1/3."""
    curve = calibration.risk_coverage(SURE, WRONG, (0.25, 0.5, 0.6, 1.0))
    assert curve.aurc == pytest.approx([1 / 3])
    assert curve.risk[0] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])


def test_order_of_items_is_of_no_matter_and_ties_go_together():
    shuffled = np.array([2, 0, 3, 1])
    assert calibration.risk_coverage(SURE[shuffled], WRONG[shuffled], (1.0,)).aurc == pytest.approx([1 / 3])
    tied = calibration.risk_coverage(np.full(4, 0.8), WRONG, (0.25, 1.0))
    assert tied.aurc == pytest.approx([0.5]) and tied.risk[0] == pytest.approx([0.5, 0.5])


def test_weights_are_repetitions():
    rng = np.random.default_rng(2)
    sure, errors = rng.random(30).round(1), rng.random(30) < 0.3
    weights = rng.integers(0, 4, (20, 30))
    coverages = (0.1, 0.5, 0.9, 1.0)
    found = calibration.risk_coverage(sure, errors, coverages, weights.astype(float))
    for row, times in enumerate(weights):
        repeated = calibration.risk_coverage(np.repeat(sure, times), np.repeat(errors, times), coverages)
        assert found.aurc[row] == pytest.approx(repeated.aurc[0])
        assert found.risk[row] == pytest.approx(repeated.risk[0])


def test_perfect_and_useless_confidence():
    """Errors last: risk 0 up to coverage 1 - e. Below the overall error if confidence is informative."""
    errors = np.arange(100) >= 80
    sorted_sure = 1 - np.arange(100) / 200
    good = calibration.risk_coverage(sorted_sure, errors, (0.8, 1.0))
    bad = calibration.risk_coverage(1.5 - sorted_sure, errors, (0.2, 1.0))
    assert good.risk[0] == pytest.approx([0, 0.2]) and bad.risk[0] == pytest.approx([1, 0.2])
    assert good.aurc[0] < 0.2 < bad.aurc[0]


def test_no_items():
    none = np.zeros(0)
    assert np.isnan(calibration.ece(none, none.astype(bool))).all()
    curve = calibration.risk_coverage(none, none.astype(bool), (0.5, 1.0))
    assert np.isnan(curve.aurc).all() and curve.risk.shape == (1, 2)


def bounded(rng: np.random.Generator, sure: np.ndarray, gap: float, name: str) -> calibration.BoundedEce:
    """Decisions that are right with probability `sure` less `gap`, so that the true ECE is `gap`."""
    right = rng.random(len(sure)) < sure - gap
    return calibration.bounded_ece(sure, right, stats.resample_weights(len(sure), 200, name))


@pytest.mark.parametrize("gap", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_the_interval_covers_the_true_ece(gap):
    """n = 200, 250 studies: a percentile interval covers about 0, 0, 2, 72 and 95 % at these gaps."""
    rng = np.random.default_rng(0)
    found = [bounded(rng, 0.6 + 0.35 * rng.random(200), gap, str(study)) for study in range(250)]
    assert np.mean([one.low <= gap <= one.high for one in found]) >= 0.85
    assert all(0 <= one.low <= one.value <= one.high for one in found)
    # Not by being useless: on average within 4 standard errors √(¼/n) = .035, and a gap of .2 is told from 0.
    assert np.mean([one.high - one.low for one in found]) < 0.14
    if gap == 0.2:
        assert np.mean([one.low > 0 for one in found]) >= 0.95


@pytest.mark.parametrize(("gap", "other"), [(0.0, 0.0), (0.05, 0.0), (0.1, 0.0), (0.1, 0.05), (0.2, 0.0)])
def test_the_interval_covers_the_true_difference(gap, other):
    """Two policies on the same memes, with confidences of their own."""
    rng, covered = np.random.default_rng(1), []
    for study in range(150):
        sure = 0.6 + 0.35 * rng.random(200)
        near = np.clip(sure + 0.05 * rng.normal(size=200), 0.55, 0.97)
        one, two = bounded(rng, sure, gap, str(study)), bounded(rng, near, other, str(study))
        value, low, high = calibration.difference(one, two)
        assert low <= value <= high and value == one.value - two.value
        covered.append(low <= gap - other <= high)
    assert np.mean(covered) >= 0.85


def test_bounds_of_no_items():
    none = calibration.bounded_ece(np.zeros(0), np.zeros(0, bool), np.zeros((5, 0)))
    assert np.isnan(none[:3]).all()
