"""Cosines of summed gradients from their inner products, their jackknife intervals and split-half reliability."""

from typing import NamedTuple

import numpy as np
import scipy.stats

from memedynamics import stats

SPLITS, SEED = 200, 0
FEWEST = 3  # clusters, for halves and for the jackknife
LIMIT = 1 - 1e-9  # a cosine's largest size before artanh


class Products(NamedTuple):
    """Inner products of gradients of u units (memes, or groups of them), and the cluster of each unit."""

    inner: np.ndarray  # (u, O, u, O)
    cluster: np.ndarray  # (u,) from 0
    p: np.ndarray  # (u,) share correct; NaN of groups

    @property
    def clusters(self) -> int:
        """How many clusters there are."""
        return len(np.unique(self.cluster))

    def of(self, mask: np.ndarray) -> "Products":
        """Those of the units in `mask` (u,) bool."""
        cluster = np.unique(self.cluster[mask], return_inverse=True)[1]
        return Products(self.inner[mask][:, :, mask], cluster, self.p[mask])


def cosines(weights: np.ndarray, inner: np.ndarray, across: bool = False) -> np.ndarray:
    """Cosines (R, O, O) of the objectives' gradients summed over units with each row of `weights` (R, u), 0 or 1.

    `across` leaves out the products of a unit with itself. NaN where a squared norm is not above 0.
    """
    kept = inner
    if across:
        kept = inner.copy()
        kept[np.arange(len(inner)), :, np.arange(len(inner))] = 0.0
    summed = np.einsum("ru,uovq,rv->roq", weights, kept, weights, optimize=True)
    squares = np.einsum("roo->ro", summed)
    # A sum that cancels in exact arithmetic leaves a rest of float32's size.
    floor = 1e-10 * np.einsum("ru,uouo->ro", weights, inner)
    norms = np.sqrt(np.where(squares > floor, squares, np.nan))
    return summed / norms[:, :, None] / norms[:, None, :]


def jackknife(value: np.ndarray, left_out: np.ndarray, bounded: bool) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of `value` (…,) from the values with one cluster left out, `left_out` (clusters, …).

    `bounded`: on the scale of artanh. NaN with under FEWEST clusters, and where leaving one out leaves none.
    """
    clusters = len(left_out)
    if clusters < FEWEST:
        return np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    there, back = (lambda x: np.arctanh(np.clip(x, -LIMIT, LIMIT)), np.tanh) if bounded else (np.array, np.array)
    turned = there(left_out)
    error = np.sqrt((clusters - 1) / clusters * ((turned - turned.mean(0)) ** 2).sum(0))
    reach = scipy.stats.t.ppf(0.975, clusters - 1) * error
    return back(there(value) - reach), back(there(value) + reach)


def without_each(cluster: np.ndarray) -> np.ndarray:
    """Weights (clusters, u): row c is 0 on the units of cluster c, 1 elsewhere."""
    return (cluster[None, :] != np.arange(cluster.max() + 1)[:, None]).astype(float)


def halves(cluster: np.ndarray) -> np.ndarray:
    """SPLITS splits of the clusters into two halves: weights (SPLITS, u), 1 on the units of the first half."""
    random, count = np.random.default_rng(SEED), int(cluster.max()) + 1
    first = np.argsort(random.random((SPLITS, count)), axis=1) < (count + 1) // 2
    return first[:, cluster].astype(float)


def split_half(products: Products) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lower and upper end (O,) of the cosine between sums over two halves; NaN with under FEWEST clusters."""
    size = products.inner.shape[1]
    if products.clusters < FEWEST:
        return (np.full(size, np.nan),) * 3
    one = halves(products.cluster)
    other = 1 - one
    own = np.einsum("uovo->ouv", products.inner)
    cross, first, second = (np.einsum("ru,ouv,rv->ro", a, own, b, optimize=True) for a, b in _pairs(one, other))
    valid = (first > 0) & (second > 0)
    found = np.where(valid, cross / np.sqrt(np.where(valid, first * second, 1.0)), np.nan)
    low, high = stats.interval(found)
    counted = (~np.isnan(found)).sum(0)
    return stats.ratio(np.nansum(found, 0), counted), low, high


def _pairs(one: np.ndarray, other: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return (one, other), (one, one), (other, other)
