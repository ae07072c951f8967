"""The forecast of groups without advantage: by hand, by enumeration, by quadrature, and on chosen prompts."""

from itertools import combinations, product
from math import comb, factorial, prod

import numpy as np
import polars as pl
import pytest
import scipy.integrate
import scipy.stats

from memedynamics import zero_advantage


def test_by_hand():
    """Of 4 samples 3 and 1 agree, G = 2.

    unbiased: 3 of the 6 pairs agree. plug-in: (3/4)² + (1/4)² = 10/16.
    posterior, α = (1, 1): (4·5 + 2·3)/(6·7) = 26/42.
    """
    found = np.array([[3.0, 1.0]])
    assert zero_advantage.unbiased(found, 2) == pytest.approx([0.5])
    assert zero_advantage.plug_in(found, 2) == pytest.approx([0.625])
    assert zero_advantage.posterior(found, 2, np.ones(2)) == pytest.approx([26 / 42])


def test_the_plug_in_reads_58_for_a_true_43():
    """p = .9, K = G = 8: .9⁸ + .1⁸ = .4305, but the plug-in's mean over Binomial(8, .9) is .5777."""
    n = np.arange(9)
    chance = scipy.stats.binom.pmf(n, 8, 0.9)
    found = np.column_stack([n, 8 - n]).astype(float)
    assert chance @ zero_advantage.plug_in(found, 8) == pytest.approx(0.5777, abs=5e-5)
    assert (
        chance @ zero_advantage.unbiased(found, 8) == pytest.approx(0.9**8 + 0.1**8) == pytest.approx(0.4305, abs=5e-5)
    )


@pytest.mark.parametrize("group", [2, 3, 5])
def test_unbiased_for_three_outcomes(group: int):
    """Its mean over all multinomial counts of K = 5 is Σ π^G."""
    share, total = np.array([0.6, 0.3, 0.1]), 5
    counts = [c for c in product(range(total + 1), repeat=3) if sum(c) == total]
    chance = [factorial(total) / prod(map(factorial, c)) * prod(share**c) for c in counts]
    assert sum(chance) == pytest.approx(1)
    found = zero_advantage.unbiased(np.array(counts, float), group)
    assert chance @ found == pytest.approx((share**group).sum())


def test_unbiased_is_the_share_of_subsets_that_agree():
    drawn = [0, 0, 0, 1, 1, 2, 0]
    for group in range(1, 8):
        subsets = list(combinations(drawn, group))
        expected = sum(len(set(subset)) == 1 for subset in subsets) / comb(7, group)
        found = zero_advantage.unbiased(np.array([[4.0, 2.0, 1.0]]), group)
        assert found == pytest.approx([expected], abs=1e-12)


def test_fewer_samples_than_the_group():
    found = np.array([[3.0, 1.0], [5.0, 0.0]])
    assert np.isnan(zero_advantage.unbiased(found, 5)).tolist() == [True, False]
    assert np.isfinite(zero_advantage.plug_in(found, 5)).all()
    assert np.isfinite(zero_advantage.posterior(found, 5, np.ones(2))).all()


def test_posterior_is_the_integral_over_the_beta_distribution():
    found, alpha, group = np.array([[6.0, 2.0]]), np.array([0.7, 1.9]), 5
    beta = scipy.stats.beta(6.7, 3.9)
    expected = scipy.integrate.quad(lambda p: (p**group + (1 - p) ** group) * beta.pdf(p), 0, 1)[0]
    assert zero_advantage.posterior(found, group, alpha) == pytest.approx([expected], rel=1e-6)


def test_certain_prompts_and_groups_of_one():
    found = np.array([[8.0, 0.0], [0.0, 8.0], [5.0, 3.0]])
    assert zero_advantage.unbiased(found, 8)[:2] == pytest.approx([1, 1])
    assert zero_advantage.plug_in(found, 8)[:2] == pytest.approx([1, 1])
    for estimate in (zero_advantage.unbiased(found, 1), zero_advantage.plug_in(found, 1)):
        assert estimate == pytest.approx([1, 1, 1])
    assert zero_advantage.posterior(found, 1, np.array([2.0, 0.5])) == pytest.approx([1, 1, 1])


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True π of 6,000 prompts, drawn from Dirichlet(1.5, .6, .15), and counts of 8 samples each."""
    rng, alpha = np.random.default_rng(0), np.array([1.5, 0.6, 0.15])
    share = rng.dirichlet(alpha, 6000)
    return alpha, share, rng.multinomial(8, share).astype(float)


def test_the_prior_is_found_again(drawn):
    alpha, _, found = drawn
    assert zero_advantage.dirichlet(found) == pytest.approx(alpha, rel=0.1)


def test_prompts_chosen_on_the_same_samples(drawn):
    """Of the prompts whose 8 samples differ, the unbiased estimate sees none without advantage; the posterior does."""
    alpha, share, found = drawn
    truth = (share**8).sum(axis=1)
    assert zero_advantage.unbiased(found, 8).mean() == pytest.approx(truth.mean(), abs=0.02)
    kept = found.max(axis=1) < 8
    posterior = zero_advantage.posterior(found, 8, zero_advantage.dirichlet(found))
    assert zero_advantage.unbiased(found, 8)[kept].max() == 0 and truth[kept].mean() > 0.1
    assert posterior[kept].mean() == pytest.approx(truth[kept].mean(), abs=0.01)


def test_one_outcome_everywhere_has_a_finite_prior():
    found = np.tile([8.0, 0.0], (20, 1)) + [[0, 0]]
    alpha = zero_advantage.dirichlet(found[:, :1])
    assert np.isfinite(alpha).all()
    assert zero_advantage.posterior(found[:, :1], 8, alpha) == pytest.approx(np.ones(20))


def samples(rewards: list[list[float]]) -> pl.DataFrame:
    rows = [(f"m{i}", k, r) for i, row in enumerate(rewards) for k, r in enumerate(row)]
    frame = pl.DataFrame(rows, schema=["id", "sample", "reward"], orient="row")
    return frame.with_columns(dataset=pl.lit("d"), split=pl.lit("train"))


def test_outcomes_are_distinct_totals():
    """.1 + .9 and 1 are one outcome; .9 (right, badly formed) and 1 are two."""
    memes, found = zero_advantage.counts(samples([[0.1 + 0.9, 1.0, 0.9], [0.1, 0.1, 0.0]]))
    assert memes["id"].to_list() == ["m0", "m1"]
    assert found.tolist() == [[0, 0, 1, 2], [1, 2, 0, 0]]


def test_forecast_names_its_estimators():
    frame = zero_advantage.forecast(samples([[1.0, 1.0, 0.1, 1.0], [0.1, 0.1, 0.1, 0.1]]), 2)
    assert frame["unbiased"].to_list() == pytest.approx([0.5, 1.0])
    assert set(zero_advantage.ESTIMATORS) < set(frame.columns) and frame["posterior"].is_finite().all()
    assert frame["posterior"][0] < frame["posterior"][1] < 1


def test_a_continuous_reward_has_no_prior():
    frame = zero_advantage.forecast(samples([[i + 0.1 * k for k in range(5)] for i in range(9)]), 4)
    assert frame["posterior"].is_nan().all() and (frame["unbiased"] == 0).all()
