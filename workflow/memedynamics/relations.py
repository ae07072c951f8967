"""Which policies are compared, and relations between two numbers of many: are more accurate ones surer?

A path is one run's milestones in order, from the base where the run starts there.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from memedynamics.gather import BASE


class Matched(NamedTuple):
    """The accuracy two paths are read at, and the entropy of each there; each (…)."""

    accuracy: np.ndarray
    entropy: np.ndarray
    versus: np.ndarray


def comparisons(who: Sequence[dict]) -> list[tuple[int, int]]:
    """Indices of curves to compare: each policy with the base, and methods at equal seed, fraction and kind of text."""
    base = [i for i, curve in enumerate(who) if curve["method"] == BASE]
    policies = [i for i, curve in enumerate(who) if curve["method"] != BASE]
    condition = [(curve["seed"], curve["fraction"], curve["probe_kind"]) for curve in who]
    return [(i, j) for i in policies for j in base] + [
        (a, b) for a, b in combinations(policies, 2) if condition[a] == condition[b]
    ]


def rank_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's ρ of `x` and `y` over their last axis, ties by mean rank: (…). NaN where either is constant."""
    a, b = (rankdata(z, axis=-1) - (z.shape[-1] + 1) / 2 for z in (x, y))
    scale = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.where(scale > 0, (a * b).sum(-1) / np.where(scale > 0, scale, 1), np.nan)


def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slope of `y` on `x` over their last axis: (…). NaN where `x` is constant."""
    centred = x - x.mean(-1, keepdims=True)
    spread = (centred**2).sum(-1)
    return np.where(spread > 0, (centred * y).sum(-1) / np.where(spread > 0, spread, 1), np.nan)


def correlation_interval(rho: float, n: int) -> tuple[float, float]:
    """95 % interval of a Spearman ρ from `n` runs: tanh(artanh ρ ± 1.96·√(1.06/(n−3))) (Fieller et al. 1957).

    (NaN, NaN) below four runs, and at |ρ| = 1, where the transformation has no finite value.
    """
    if n < 4 or not abs(rho) < 1:
        return float("nan"), float("nan")
    half = 1.959964 * np.sqrt(1.06 / (n - 3))
    return float(np.tanh(np.arctanh(rho) - half)), float(np.tanh(np.arctanh(rho) + half))


def matched(path: tuple[np.ndarray, np.ndarray], versus: tuple[np.ndarray, np.ndarray]) -> Matched:
    """Entropies of two paths at the highest accuracy that both reach; a path is (accuracy, entropy), each (…, M).

    Read where a path first reaches that accuracy, linear between milestones. NaN where a path never rises above its
    start. The accuracy is a maximum over milestones, hence a little optimistic, for both alike.
    """
    level = np.minimum(path[0].max(-1), versus[0].max(-1))
    risen = (level > path[0][..., 0]) & (level > versus[0][..., 0])
    read = [np.where(risen, _read(*side, level), np.nan) for side in (path, versus)]
    return Matched(np.where(risen, level, np.nan), *read)


def _read(accuracy: np.ndarray, entropy: np.ndarray, level: np.ndarray) -> np.ndarray:
    after = np.maximum((accuracy >= level[..., None]).argmax(-1), 1)[..., None]
    (x0, x1), (y0, y1) = (
        [np.take_along_axis(z, at, -1)[..., 0] for at in (after - 1, after)] for z in (accuracy, entropy)
    )
    step = np.where(x1 != x0, x1 - x0, 1.0)
    return y0 + (y1 - y0) * (level - x0) / step
