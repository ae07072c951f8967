"""Entropies, their decomposition and mutual information against hand arithmetic, enumeration and integration."""

from itertools import product

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from memedynamics import information, stats


def h(q: float) -> float:
    return float(information.entropy(information.binary(np.array(q))))


def test_entropies_by_hand():
    """H(1/2) = ln 2; H(.9) = -.9 ln .9 - .1 ln .1 = .094824 + .230259 = .325083; three equal outcomes ln 3."""
    assert h(0.5) == pytest.approx(np.log(2))
    assert h(0.9) == pytest.approx(0.325083, abs=1e-6)
    assert h(0) == h(1) == 0
    assert information.entropy(np.full(3, 1 / 3)) == pytest.approx(np.log(3))


def test_plug_in_is_low_by_half_over_k_in_the_middle_and_not_at_the_edge():
    """Exact bias from all 2^K samples: at p = 1/2 near -1/(2K), K = 16: -.0313; at p = .01 two thirds."""
    k, ones = 16, np.arange(17)
    estimate = information.plug_in(np.stack([ones, k - ones], axis=1))
    chance = [[np.prod([(k - i) / (i + 1) for i in range(m)]) * p**m * (1 - p) ** (k - m) for m in ones]
              for p in (0.5, 0.01)]  # fmt: skip
    assert np.sum(chance[0]) == pytest.approx(1)
    middle, edge = ((np.array(weight) * estimate).sum() - h(p) for weight, p in zip(chance, (0.5, 0.01), strict=True))
    assert middle == pytest.approx(-1 / 32, rel=0.1)
    assert -0.7 / 32 < edge < 0


@pytest.mark.parametrize("counts", [(0, 8), (3, 5), (4, 4), (1, 0)])
def test_posterior_mean_is_the_integral_over_the_posterior(counts):
    posterior = beta(counts[0] + 0.5, counts[1] + 0.5)
    expected, _ = quad(lambda p: h(p) * posterior.pdf(p), 0, 1, limit=400)
    assert information.posterior_mean(np.array(counts, float)) == pytest.approx(expected, abs=1e-6)


def test_posterior_mean_of_three_outcomes_against_draws():
    drawn = np.random.default_rng(0).dirichlet(np.array([2, 5, 1]) + 0.5, 200_000)
    assert information.posterior_mean(np.array([2.0, 5, 1])) == pytest.approx(
        information.entropy(drawn).mean(), abs=2e-3
    )


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5])
def test_gini_is_unbiased_over_all_samples_of_three(p: float):
    """Mean over the 8 samples of K = 3, by their probabilities, is 2p(1-p); K/(K-1)·2·(1/3)(2/3) = 2/3 for one of 3."""
    expected = 0.0
    for sample in product((0, 1), repeat=3):
        counts = np.array([sum(sample), 3 - sum(sample)], float)
        expected += np.prod([p if x else 1 - p for x in sample]) * information.gini(counts)
    assert expected == pytest.approx(2 * p * (1 - p))
    assert information.gini(np.array([1.0, 2])) == pytest.approx(2 / 3)
    # Three outcomes, as many as draws: every two draws differ.
    assert information.gini(np.ones(3)) == pytest.approx(1)


def test_nothing_counted_is_not_a_number():
    none = np.zeros((1, 2))
    assert all(np.isnan(f(none)).all() for f in (information.plug_in, information.posterior_mean, information.gini))
    assert np.isnan(information.gini(np.array([1.0, 0])))


def test_decomposition_by_hand():
    """q = .9, .1: H(mean) = H(.5) = .693147, mean H = H(.9) = .325083, I = .368064.

    Jackknife, K = 2: each left-out entropy is H(.9), so 2·.693147 - 1·.325083 = 1.061211.
    """
    part = information.decompose(information.binary(np.array([[0.9, 0.1]])), np.ones((1, 2), bool))
    assert [x.item() for x in part] == pytest.approx([0.693147, 0.325083, 0.368064, 1.061211, 0.736128], abs=1e-6)
    same = information.decompose(information.binary(np.full((1, 4), 0.3)), np.ones((1, 4), bool))
    assert [x.item() for x in same] == pytest.approx([h(0.3), h(0.3), 0, h(0.3), 0], abs=1e-12)


def test_decomposition_is_an_identity_and_the_jackknife_that_of_a_loop():
    rng = np.random.default_rng(1)
    q = rng.dirichlet(np.full(3, 0.4), (40, 7))
    used = rng.random((40, 7)) < 0.7
    used[0] = False
    used[1] = [True] + 6 * [False]
    part = information.decompose(q, used)
    fine = used.sum(1) > 1
    assert (part.given + part.information)[1:] == pytest.approx(part.total[1:], abs=1e-12)
    assert (part.given + part.jackknifed_information)[fine] == pytest.approx(part.jackknifed_total[fine], abs=1e-12)
    for row in np.flatnonzero(fine):
        mine = q[row, used[row]]
        k = len(mine)
        left_out = np.mean([information.entropy(np.delete(mine, i, axis=0).mean(0)) for i in range(k)])
        assert part.jackknifed_total[row] == pytest.approx(k * part.total[row] - (k - 1) * left_out)
    assert np.isnan(part.total[0]) and np.isnan(part.information[0]) and np.isnan(part.jackknifed_total[:2]).all()
    assert not np.isnan(part.total[1])


def test_the_jackknife_takes_out_most_of_the_bias():
    """q ~ Beta(2, 2), mean ½, so the truth is ln 2; with K = 8 the plain estimate is low by Var/(2K·¼) = .05·4/16."""
    q = np.random.default_rng(2).beta(2, 2, (20_000, 8))
    part = information.decompose(information.binary(q), np.ones(q.shape, bool))
    plain, jackknifed = part.total.mean() - np.log(2), part.jackknifed_total.mean() - np.log(2)
    assert plain == pytest.approx(-0.0125, abs=2e-3)
    assert abs(jackknifed) < abs(plain) / 5


def test_mutual_information_by_hand():
    """Joint .4 .1 / .1 .4, margins ½: 2·.4 ln 1.6 + 2·.1 ln .4 = .376003 - .183258 = .192745.

    Identical: H; apart: 0.
    """
    assert information.mutual_information(np.array([[4.0, 1], [1, 4]])) == pytest.approx(0.192745, abs=1e-6)
    assert information.mutual_information(np.diag([3.0, 1])) == pytest.approx(h(0.25))
    assert information.mutual_information(np.outer([1.0, 3], [2, 5])) == pytest.approx(0, abs=1e-12)
    assert np.isnan(information.mutual_information(np.zeros((2, 2))))


def test_independent_answers_stay_within_the_null_and_dependent_ones_do_not():
    """One answer a prompt: the null's mean is about (A-1)(B-1)/(2n) = 1/800, n = 400."""
    rng = np.random.default_rng(3)
    label = np.eye(2)[rng.integers(2, size=400)]
    apart = np.eye(2)[rng.integers(2, size=400)]
    answers = np.stack([apart, label], axis=1)
    null = information.permuted_information(answers, label, 500, "x")
    value = information.mutual_information(np.einsum("nva,nb->vab", answers, label))
    assert null.shape == (500, 2)
    assert null.mean(0) == pytest.approx([1 / 800] * 2, rel=0.25)
    assert value[0] < np.quantile(null[:, 0], 0.995)
    assert value[1] == pytest.approx(h(label[:, 0].mean())) and value[1] > 10 * null[:, 1].max()
    assert (information.permuted_information(answers, label, 500, "x") == null).all()


def test_shuffles_keep_the_margins():
    """With constant answers there is nothing to know, however prompts are shuffled."""
    label = np.eye(2)[np.arange(50) % 2]
    constant = np.tile([[0.7, 0.2, 0.1]], (50, 1))[:, None]
    assert information.permuted_information(constant, label, 20).max() == pytest.approx(0, abs=1e-12)


def answered(rng: np.random.Generator, joint: np.ndarray, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares (n, 1, A) of k answers and outcomes (n, B) whose single pairs are distributed as `joint` (A, B)."""
    outcome = rng.choice(joint.shape[1], n, p=joint.sum(0))
    chance = (joint / joint.sum(0))[:, outcome].T
    # Prompts differ: some are clear, some are not; k > 1 answers to one of them are alike.
    own = chance if k == 1 else np.stack([rng.dirichlet(2 * row) for row in chance])
    return rng.multinomial(k, own)[:, None] / k, np.eye(joint.shape[1])[outcome]


APART = np.outer([0.6, 0.4], [0.5, 0.5])
MODERATE = np.array([[0.4, 0.1], [0.1, 0.4]])
WEAK = np.array([[0.3, 0.2], [0.2, 0.3]])
THIRD = np.array([[0.35, 0.1], [0.1, 0.35], [0.05, 0.05]])


@pytest.mark.parametrize(("joint", "truth"), [(APART, 0.0), (WEAK, 0.020136), (MODERATE, 0.192745), (THIRD, 0.147097)])
@pytest.mark.parametrize("k", [1, 8])
def test_the_interval_covers_the_true_information(joint: np.ndarray, truth: float, k: int):
    """n = 200, 250 studies: a percentile interval of the plug-in covers 0 in none of them.

    WEAK: ln 2 - H(.6) = .693147 - .673012. THIRD: the third outcome tells nothing, the others are 7 : 2, so
    .9(ln 2 - H(7/9)) = .9(.693147 - .529706).
    """
    assert information.mutual_information(joint) == pytest.approx(truth, abs=2e-6)
    rng, n = np.random.default_rng(0), 200
    weights = stats.resample_weights(n, 200, "x")
    found = [information.bounded_information(*answered(rng, joint, n, k), np.arange(n), weights) for _ in range(250)]
    value, low, high, plug_in = (np.array([part[i].item() for part in found]) for i in range(4))
    assert np.mean((low <= truth) & (truth <= high)) >= 0.9
    assert ((low >= 0) & (low <= value) & (value <= high)).all()
    # Less biased than the plug-in, by about half of (A - 1)(B - 1)/(2n) or more at one answer a prompt.
    assert value.mean() == pytest.approx(truth, abs=0.004) and plug_in.mean() > value.mean()
    # Not by being useless: a moderate information is told from 0.
    if truth > 0.1:
        assert (low > 0).mean() >= 0.95 and (high - low).mean() < truth


def test_the_interval_is_that_of_a_loop():
    """Two curves at once, prompts in clusters of two, every step written out for the second."""
    rng = np.random.default_rng(4)
    a, b = answered(rng, MODERATE, 60, 4)
    other, _ = answered(rng, APART, 60, 4)
    cluster = np.arange(60) // 2
    weights = stats.resample_weights(30, 100, "x")
    found = information.bounded_information(np.concatenate([other, a], axis=1), b, cluster, weights, "x")
    plug_in = float(information.mutual_information(a[:, 0].T @ b))
    drawn = []
    for row in weights:
        items = [i for i in range(60) for _ in range(int(row[cluster[i]]))]
        drawn.append(float(information.mutual_information(a[items, 0].T @ b[items])))
    null = information.permuted_information(a, b, 100, "x")[:, 0]
    low, high = np.percentile(drawn, [2.5, 97.5]) - (np.mean(drawn) - plug_in) - null.mean()
    assert found.plug_in[1] == pytest.approx(plug_in) and found.value[1] == pytest.approx(plug_in - null.mean())
    assert (found.low[1], found.high[1]) == (pytest.approx(low), pytest.approx(high))
    assert found.low[0] == 0


def test_no_information_of_no_answers():
    """Every response invalid and dropped: nothing is known, for this curve alone."""
    a = np.stack([np.zeros((20, 2)), np.eye(2)[np.arange(20) % 2]], axis=1)
    weights = stats.resample_weights(20, 30, "x")
    found = information.bounded_information(a, np.eye(2)[np.arange(20) % 2], np.arange(20), weights)
    assert np.isnan([part[0] for part in found[:4]]).all() and not np.isnan([part[1] for part in found[:4]]).any()
