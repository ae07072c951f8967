"""Cluster bootstrap, McNemar, Holm, AUROC, F1: known answers, invariants, independent implementations."""

import numpy as np
import polars as pl
import pytest
import scipy.stats
from sklearn.metrics import f1_score, roc_auc_score

from memedynamics import curves, stats


def drawn(n: int = 60, curves: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, curves) and clusters of uneven size, the last ones single."""
    rng = np.random.default_rng(seed)
    cluster = np.sort(rng.integers(n // 2, size=n))
    return rng.random((n, curves)), np.unique(cluster, return_inverse=True)[1]


def items_of(cluster: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Items of one resample, written out: every drawn cluster's items as often as it was drawn."""
    return np.concatenate([np.flatnonzero(cluster == c) for c, k in enumerate(weights) for _ in range(int(k))])


def test_equal_texts_share_a_cluster():
    """Case and white space are ignored, accents and punctuation are not; empty texts stand alone."""
    texts = ["Look at  this", "look AT this ", "look at this!", "", "café", "cafe", " ", "LOOK\nat this"]
    assert stats.clusters(texts).tolist() == [0, 0, 1, 2, 3, 4, 5, 0]


def test_identical_texts_form_one_cluster():
    assert stats.clusters(["same"] * 5).tolist() == [0] * 5
    assert stats.clusters([]).tolist() == []
    # A caption may spell out what stands for an empty one.
    assert stats.clusters(["", "empty", "0"]).tolist() == [0, 1, 2]


def test_weights_count_draws_with_replacement():
    """A cluster's count in C draws is Binomial(C, 1/C): mean 1, variance 1 - 1/C; two counts have covariance -1/C."""
    clusters, resamples = 20, 20_000
    weights = stats.resample_weights(clusters, resamples, "a")
    assert weights.shape == (resamples, clusters) and (weights.sum(axis=1) == clusters).all()
    assert weights.min() == 0 and (weights == weights.round()).all()
    # Standard errors over 20,000 rows: mean 1/√20000 = 0.007; variance, pooled over 20 columns, about 0.003.
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.035)
    covariance = np.cov(weights.T)
    assert np.diag(covariance).mean() == pytest.approx(1 - 1 / clusters, abs=0.015)
    assert covariance[~np.eye(clusters, dtype=bool)].mean() == pytest.approx(-1 / clusters, abs=0.005)
    share = np.bincount(weights.ravel().astype(int), minlength=5)[:5] / weights.size
    np.testing.assert_allclose(share, scipy.stats.binom(clusters, 1 / clusters).pmf(range(5)), atol=0.01)


def test_weights_are_those_of_their_name():
    first = stats.resample_weights(30, 50, "memes/val")
    assert np.array_equal(first, stats.resample_weights(30, 50, "memes/val"))
    assert not np.array_equal(first, stats.resample_weights(30, 50, "memes/test"))
    # Fewer resamples are the first of more: a quick study sees the same draws.
    assert np.array_equal(first[:20], stats.resample_weights(30, 20, "memes/val"))


def test_weighted_sums_by_hand():
    """Items 1, 2, 4 in clusters 0, 1, 0: sums 5 and 2. Weights (2, 0) give 10, (1, 1) give 7, (0, 2) give 4."""
    values, cluster = np.array([1.0, 2.0, 4.0]), np.array([0, 1, 0])
    assert stats.cluster_sums(values, cluster, 2).tolist() == [5, 2]
    weights = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    assert stats.resampled_sums(values, cluster, weights).tolist() == [10, 7, 4]


def test_resampled_means_equal_a_loop():
    values, cluster = drawn()
    weights = stats.resample_weights(cluster.max() + 1, 200, "loop")
    sums = stats.resampled_sums(values, cluster, weights)
    found = sums / stats.resampled_sums(np.ones(len(values)), cluster, weights)[:, None]
    expected = np.array([values[items_of(cluster, row)].mean(axis=0) for row in weights])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    low, high = stats.interval(found)
    np.testing.assert_allclose([low, high], np.quantile(expected, [0.025, 0.975], axis=0), rtol=1e-12)


def test_single_items_give_scipys_interval():
    """1,000 items alone in their cluster: the ordinary bootstrap of a mean, apart from the draws.

    An end of either has Monte Carlo error √(.025·.975/4000)/φ(1.96) = .042 standard errors; they differ by √2 of that,
    .06, so .25 standard errors are four times it.
    """
    values = np.random.default_rng(3).exponential(size=1000)
    weights = stats.resample_weights(1000, 4000, "scipy")
    low, high = stats.interval(stats.resampled_sums(values, np.arange(1000), weights) / 1000)
    known = scipy.stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", batch=500, rng=1)
    error = values.std() / np.sqrt(1000)
    assert abs(low - known.confidence_interval.low) < 0.25 * error
    assert abs(high - known.confidence_interval.high) < 0.25 * error
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_repeating_a_cluster_adds_no_information():
    """Every item twice in its cluster: the same interval. Every copy counted as new: √2 too narrow."""
    values = np.random.default_rng(4).random(300)
    cluster, twice = np.arange(300), np.repeat(values, 2)
    weights = stats.resample_weights(300, 2000, "twice")
    once = stats.interval(stats.resampled_sums(values, cluster, weights) / 300)
    same = stats.interval(stats.resampled_sums(twice, np.repeat(cluster, 2), weights) / 600)
    np.testing.assert_allclose(once, same, rtol=1e-12)
    naive = stats.interval(stats.resampled_sums(twice, np.arange(600), stats.resample_weights(600, 2000)) / 600)
    assert (once[1] - once[0]) / (naive[1] - naive[0]) == pytest.approx(np.sqrt(2), rel=0.1)


def test_interval_covers_the_truth_as_often_as_it_says():
    """200 data sets of 60 clusters: 95 % ± 4·√(.05·.95/200) = 6 points, one of which a percentile interval may lack."""
    rng, weights = np.random.default_rng(5), stats.resample_weights(60, 400, "coverage")
    cluster = np.repeat(np.arange(60), 3)
    covered = 0
    for _ in range(200):
        values = (rng.normal(size=60)[cluster] + rng.normal(size=180) / 2)[:, None]
        low, high = stats.interval(stats.resampled_sums(values, cluster, weights) / 180)
        covered += low[0] < 0 < high[0]
    assert 0.88 <= covered / 200 <= 0.995


def test_interval_skips_undefined_resamples():
    """0..100 with every value there twice, once as NaN: the 2.5 and 97.5 percentiles of 0..100 are 2.5 and 97.5."""
    numbers = np.arange(101.0)
    replicates = np.stack([np.r_[numbers, np.full(101, np.nan)], np.r_[numbers, numbers], np.full(202, np.nan)], 1)
    low, high = stats.interval(replicates)
    assert low[0] == pytest.approx(2.5) and high[0] == pytest.approx(97.5)
    assert np.isnan([low[2], high[2]]).all() and not np.isnan([low[1], high[1]]).any()


def test_ratio_is_undefined_over_zero():
    found = stats.ratio(np.array([1, 0, 3]), np.array([4, 0, 0]))
    assert found[0] == 0.25 and np.isnan(found[1:]).all()


def test_f1_by_hand():
    """3 hits, 1 false claim, 2 misses: 2·3 / (2·3 + 1 + 2) = 6/9; hits alone 1; misses alone 0; nothing undefined."""
    found = stats.f1(np.array([3, 1, 0, 0]), np.array([1, 0, 0, 0]), np.array([2, 0, 5, 0]))
    assert found[:3] == pytest.approx([2 / 3, 1, 0]) and np.isnan(found[3])


def test_f1_equals_sklearns():
    rng = np.random.default_rng(6)
    truth, claim = rng.integers(2, size=(2, 500)).astype(bool)
    found = stats.f1((truth & claim).sum(), (~truth & claim).sum(), (truth & ~claim).sum())
    assert found == pytest.approx(f1_score(truth, claim))


def test_auroc_by_hand():
    """1s at .9, .5; 0s at .5, .1: wins .9>.5, .9>.1, .5>.1 and half of .5=.5: 3.5 of 4."""
    scores, labels = np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 0])
    assert stats.auroc(scores, labels).tolist() == [0.875]
    # The 1 at .5 twice and the 0 at .5 not at all: 0 at .1 is below all: 3 of 3.
    assert stats.auroc(scores, labels, np.array([[1.0, 2.0, 0.0, 1.0]])).tolist() == [1]
    # The 1 at .5 three times, the 0 at .5 twice: .9 beats 3; .5 wins 1 + ½·2 = 2, three times; 9 of 4·3.
    assert stats.auroc(scores, labels, np.array([[1.0, 3.0, 2.0, 1.0]])).tolist() == [0.75]
    assert np.isnan(stats.auroc(scores, np.ones(4))).all() and np.isnan(stats.auroc(scores, np.zeros(4))).all()


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_auroc_equals_sklearns_with_weights_and_ties(decimals: int):
    rng = np.random.default_rng(7)
    scores, labels = rng.random(80).round(decimals), rng.integers(2, size=80)
    scores = np.where(labels == 1, scores**0.7, scores).round(decimals)
    weights = stats.resample_weights(80, 40, "auroc")
    expected = [roc_auc_score(labels, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(stats.auroc(scores, labels, weights), expected, rtol=1e-12)
    assert stats.auroc(scores, labels)[0] == pytest.approx(roc_auc_score(labels, scores))
    # Ranks alone count, and reversing them mirrors the area.
    assert stats.auroc(np.exp(scores), labels) == pytest.approx(stats.auroc(scores, labels))
    assert stats.auroc(-scores, labels) == pytest.approx(1 - stats.auroc(scores, labels))


def test_mcnemar_by_hand():
    """4 pairs for one, 1 for the other: p = 2·(C(5,0) + C(5,1)) / 2⁵ = 12/32 = .375. Agreement does not count."""
    right = np.array([1, 1, 1, 1, 0, 1, 1, 0], dtype=bool)
    other = np.array([0, 0, 0, 0, 1, 1, 1, 0], dtype=bool)
    assert stats.mcnemar(right, other) == (4, 1, pytest.approx(0.375))
    assert stats.mcnemar(other, right) == (1, 4, pytest.approx(0.375))
    assert stats.mcnemar(right, right) == (0, 0, 1)


def test_mcnemar_equals_the_binomial_tail():
    rng = np.random.default_rng(8)
    for _ in range(20):
        right, other = rng.random(80) < 0.8, rng.random(80) < 0.6
        gains, losses, p = stats.mcnemar(right, other)
        assert gains == sum(a and not b for a, b in zip(right, other, strict=True))
        tail = scipy.stats.binom(gains + losses, 0.5).cdf(min(gains, losses))
        assert (
            p
            == pytest.approx(min(1, 2 * tail))
            == pytest.approx(scipy.stats.binomtest(losses, gains + losses, 0.5).pvalue)
        )


def test_holm_by_hand():
    """.01·4 = .04; .02·3 = .06; .03·2 = .06; .04·1 = .04, but no less than the one before it: .06."""
    assert stats.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert stats.holm([0.5, 0.6]) == pytest.approx([1, 1])
    assert stats.holm([0.2]) == pytest.approx([0.2])
    assert stats.holm([]).tolist() == []


def test_holm_rejects_what_the_step_down_rejects():
    """Holm's own procedure: from the smallest p on, reject while p ≤ α / (tests left)."""
    rng = np.random.default_rng(9)
    for alpha in (0.01, 0.05, 0.2):
        p = rng.random(12) ** 4
        rejected = set()
        for done, i in enumerate(np.argsort(p)):
            if p[i] > alpha / (12 - done):
                break
            rejected.add(i)
        assert set(np.flatnonzero(stats.holm(p) <= alpha)) == rejected


# Curves and views: two curves, one of which did not answer meme c.
MEMES = pl.DataFrame({"dataset": "d", "split": "val", "id": list("abcd"), "label": [1, 0, 1, 0], "text": list("wxyz")})
WHO = pl.DataFrame(
    {"method": ["base", "sft"], "seed": [None, 1], "fraction": [0.0, 1.0], "probe_kind": ["base_sample", "own_sample"]}
)


def answered(**values: list[float | None]) -> tuple[pl.DataFrame, curves.Views]:
    """Column `x` of curves base and sft by meme; None where there was no answer."""
    frames = []
    for i, name in enumerate(("base", "sft")):
        rows = MEMES.select("dataset", "split", "id").with_columns(x=pl.Series(values[name], dtype=pl.Float64))
        frames.append(rows.join(WHO[i : i + 1], how="cross"))
    frame = pl.concat(frames).drop_nulls("x").with_columns(present=pl.lit(1.0))
    memes, who, views = curves.place(frame.sample(fraction=1, shuffle=True, seed=1), MEMES, ["present", "x"])
    assert [curve["method"] for curve in who] == ["base", "sft"]
    return memes, views


MEAN: curves.Statistics = {"mean": ("1", lambda s: stats.ratio(s["x"], s["present"]))}


def test_views_by_hand():
    """base 1 0 1 0, sft 1 1 - 0: means 1/2 and 2/3; on the three in common 1/3 and 2/3."""
    memes, views = answered(base=[1, 0, 1, 0], sft=[1, 1, None, 0])
    pair, alone = views.pair(1, 0), views.add(1)
    assert [views.size(view) for view in (*pair, alone)] == [3, 3, 3] and pair[0] == alone
    whole = views.add(0)
    estimate = curves.evaluate(views, ["present", "x"], MEAN, *curves.resampling(memes, 100))["mean"]
    assert estimate.value[[whole, alone, *pair]] == pytest.approx([1 / 2, 2 / 3, 2 / 3, 1 / 3])
    (row,) = curves.difference_rows([{"who": "sft"}], views, [pair], {"mean": estimate})
    assert row["statistic"] == "mean_difference" and row["n"] == 3 and row["value"] == pytest.approx(1 / 3)
    # The gap is that of meme b alone, 0/3 to 3/3 of a resample; it is never negative.
    assert 0 <= row["ci_low"] <= row["value"] <= row["ci_high"] <= 1


def test_a_curve_differs_from_itself_by_exactly_nothing():
    values = np.random.default_rng(2).random(4).tolist()
    memes, views = answered(base=values, sft=values)
    pair = views.pair(1, 0)
    estimates = curves.evaluate(views, ["present", "x"], MEAN, *curves.resampling(memes, 100))
    (row,) = curves.difference_rows([{}], views, [pair], estimates)
    assert (row["value"], row["ci_low"], row["ci_high"]) == (0, 0, 0)


def test_paired_intervals_are_narrower():
    """Two curves that share most of their spread: the paired interval is that of the small gap alone."""
    rng = np.random.default_rng(3)
    shared = rng.normal(size=200)
    values = np.stack([np.stack([np.ones(200), shared + 0.1 * rng.normal(size=200)], 1) for _ in range(2)], 1)
    views, cluster = curves.Views(values), np.arange(200)
    pair = views.pair(0, 1)
    weights = stats.resample_weights(200, 500)
    estimates = curves.evaluate(views, ["present", "x"], MEAN, cluster, weights)
    (gap,) = curves.difference_rows([{}], views, [pair], estimates)
    (level,) = curves.level_rows([{}], views, [pair[0]], estimates)
    # Spreads 1 and √2·0.1: the intervals' widths are about 7 to 1.
    assert (level["ci_high"] - level["ci_low"]) / (gap["ci_high"] - gap["ci_low"]) == pytest.approx(7, rel=0.25)


def test_resampling_joins_memes_of_one_caption():
    cluster, weights = curves.resampling(MEMES.with_columns(text=pl.Series(["same", "x", "SAME ", "y"])), 30)
    assert cluster.tolist() == [0, 1, 0, 2] and weights.shape == (30, 3)
