"""Spearman's rank correlation over prompts, with the cluster bootstrap of `curves`: ranks are taken in every resample.

A resample is ranked as if each prompt were written out as often as it was drawn, ties at their mean rank, which is
what scipy gives on the written-out prompts.
"""

import numpy as np

from memedynamics.curves import Estimate, Views
from memedynamics.stats import ratio

AT_ONCE = 100  # resamples whose ranks are held at once: more leave the caches, and take five times as long


def correlation(views: Views, column: int, predictor: np.ndarray, cluster: np.ndarray, weights: np.ndarray) -> Estimate:
    """Spearman's correlation, over each view's prompts, of `column` with `predictor` (n,), the same for all views."""
    values, replicates = [], []
    for curve, mask in zip(views.curves, views.masks, strict=True):
        used = predictor[mask], views.values[mask, curve, column]
        values.append(spearman(*used)[0])
        parts = np.split(weights[:, cluster[mask]], range(AT_ONCE, len(weights), AT_ONCE))
        replicates.append(np.concatenate([spearman(*used, part) for part in parts]))
    return Estimate(np.array(values), np.stack(replicates, axis=1), "1")


def spearman(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Spearman's rank correlation of `x` and `y` (n,), ties at their mean rank; NaN where either is constant.

    `weights` (R, n) says how often each item occurs and gives one correlation a row; without it one: (1,).
    """
    weights = np.ones((1, len(x))) if weights is None else weights
    if not len(x):
        return np.full(len(weights), np.nan)
    often = np.ascontiguousarray(weights.T)
    # The mean rank is (count + 1) / 2 with ties and without.
    a, b = (_mean_ranks(values, often) - (often.sum(axis=0) + 1) / 2 for values in (x, y))
    weighted = often * a
    return ratio((weighted * b).sum(0), np.sqrt((weighted * a).sum(0) * (often * b * b).sum(0)))


def _mean_ranks(values: np.ndarray, often: np.ndarray) -> np.ndarray:
    """Mean rank of each of `values` (n,) among all, each written out as `often` (n, R) says: (n, R)."""
    order = np.argsort(values, kind="stable")
    _, starts, group = np.unique(values[order], return_index=True, return_inverse=True)
    sizes = np.add.reduceat(often[order], starts, axis=0)
    ranks = sizes.cumsum(axis=0) - sizes / 2 + 0.5
    return ranks[group[np.argsort(order)]]
