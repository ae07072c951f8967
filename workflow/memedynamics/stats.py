"""Intervals and tests over prompts: cluster bootstrap, McNemar, Holm, AUROC, F1.

The unit of resampling is the cluster: memes that share a caption are not independent, so they are drawn together.
One matrix of resample weights serves every curve over the same memes, so all comparisons are paired.
A resample's statistic is a function of weighted sums, hence one matrix product for all curves and resamples.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import scipy.stats

from memedynamics.captions import clusters as clusters

LEVEL = 0.95


def resample_weights(num_clusters: int, resamples: int, name: str = "") -> np.ndarray:
    """How often each cluster is drawn: (resamples, num_clusters), every row summing to num_clusters.

    Drawn with replacement (Efron & Tibshirani 1993, ch. 6). Equal `name` and sizes, equal weights.
    """
    rng = np.random.default_rng([zlib.crc32(name.encode()), num_clusters])
    drawn = rng.integers(num_clusters, size=(resamples, num_clusters))
    drawn += num_clusters * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * num_clusters)
    return counts.reshape(resamples, num_clusters).astype(np.float64)


def cluster_sums(values: np.ndarray, cluster: np.ndarray, num_clusters: int) -> np.ndarray:
    """Sum of `values` (n, …) over the items of each cluster: (num_clusters, …)."""
    sums = np.zeros((num_clusters, *values.shape[1:]))
    np.add.at(sums, cluster, values)
    return sums


def resampled_sums(values: np.ndarray, cluster: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sums of `values` (n, …) over items, one for each row of `weights` (R, C): (R, …)."""
    sums = cluster_sums(values, cluster, weights.shape[1])
    return (weights @ sums.reshape(len(sums), -1)).reshape(len(weights), *values.shape[1:])


def interval(replicates: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over axis 0 of `replicates` (R, …); resamples that leave a statistic undefined are skipped.

    NaN where every resample does.
    """
    tail = 50 * (1 - level)
    undefined = np.isnan(replicates)
    if not undefined.any():
        low, high = np.percentile(replicates, [tail, 100 - tail], axis=0)
        return low, high
    filled = np.where(undefined.all(axis=0), 0.0, replicates)
    low, high = np.nanpercentile(filled, [tail, 100 - tail], axis=0)
    return np.where(undefined.all(axis=0), np.nan, low), np.where(undefined.all(axis=0), np.nan, high)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def f1(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """2·tp / (2·tp + fp + fn), element-wise; NaN where there is neither a case nor a claim."""
    return ratio(2 * np.asarray(tp), 2 * np.asarray(tp) + fp + fn)


def auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve: P(score of a 1 > score of a 0) + ½ P(equal), the Mann-Whitney statistic.

    `scores`, `labels` (n,); `weights` (R, n) gives one area a row, without it one: (1,). NaN without both classes.
    """
    positive = np.asarray(labels) == 1
    weights = np.ones((1, len(positive))) if weights is None else weights
    order = np.argsort(scores[~positive], kind="stable")
    below = np.zeros((len(weights), len(order) + 1))
    np.cumsum(weights[:, ~positive][:, order], axis=1, out=below[:, 1:])
    negatives, positives = scores[~positive][order], scores[positive]
    first, last = (np.searchsorted(negatives, positives, side) for side in ("left", "right"))
    weight = weights[:, positive]
    wins = np.einsum("rn,rn->r", weight, below[:, first] + below[:, last]) / 2
    return ratio(wins, weight.sum(axis=1) * below[:, -1])


def mcnemar(right: np.ndarray, other: np.ndarray) -> tuple[int, int, float]:
    """Exact two-sided McNemar test on paired outcomes (n,) bool: (only `right`, only `other`, p).

    Under the null each discordant pair falls either way with ½ (McNemar 1947). It takes items as independent:
    where captions repeat, the cluster bootstrap of the difference is the stricter reading.
    """
    gains, losses = int(np.sum(right & ~other)), int(np.sum(~right & other))
    if gains + losses == 0:
        return 0, 0, 1.0
    return gains, losses, float(scipy.stats.binomtest(gains, gains + losses).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p-values (Holm 1979), in the order given."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
