"""Ratios and correlations as functions of sums, so that one product with resample weights gives all replicates."""

from collections.abc import Mapping

import numpy as np

from memedynamics.stats import ratio


def sharpe_ratio(n: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """mean / std (n − 1) of n numbers with sum `total` and sum of squares `squares`; NaN where they do not vary."""
    return ratio(ratio(total, n), deviation(n, total, squares))


def deviation(n: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Sample standard deviation (n − 1), element-wise; NaN below two numbers, 0 where rounding is all that varies."""
    spread = squares - ratio(total * total, n)
    spread = np.where(spread > 1e-12 * np.abs(squares), spread, 0.0)
    return np.sqrt(ratio(spread, np.where(n > 1, n - 1, 0)))


def standard_error(sharpe: np.ndarray, n: np.ndarray) -> np.ndarray:
    """√((1 + SR²/2)/n): of the ratio of n independent normal numbers (Lo 2002)."""
    return np.sqrt((1 + np.square(sharpe) / 2) / n)


def correlation(s: Mapping[str, np.ndarray]) -> np.ndarray:
    """Pearson correlation of φ and occlusion from their sums, sums of squares and sum of products, element-wise."""
    n = s["present"]
    covariance = s["product"] - ratio(s["phi"] * s["occlusion"], n)
    spread = deviation(n, s["phi"], s["phi_squared"]) * deviation(n, s["occlusion"], s["occlusion_squared"])
    return ratio(ratio(covariance, np.where(n > 1, n - 1, 0)), spread)
