"""Does the decision's confidence tell its errors? Calibration error, selective risk; each for all resamples at once.

The decision is q ≥ ½ with q the mean P(Yes) over a prompt's rationales, its confidence c = max(q, 1 − q).

1. ECE: 10 bins of equal mass by c (as many prompts each, ties in the order given), Σ_b n_b/n·|accuracy_b − mean c_b|
   (Naeini et al. 2015, Guo et al. 2017; equal mass: Nixon et al. 2019). It is too high, by roughly √(2 c(1−c)/(π
   n_b)) in each bin (0.06 at n = 250, c = 0.8): read it against what a perfectly calibrated model of the same
   confidences would show (`calibrated_ece`). Bins are fixed before resampling, which adds about as much bias again: a
   percentile interval would lie above the truth. `bounded_ece` takes that excess off the upper end, and off the lower
   end twice, since the value's own bias is anything from nought to as much; starts at 0 where a calibrated model would
   show the value; and holds the value. Simulated at n from 200 to 2000, uniform miscalibration from 0 to .2, it holds
   the truth in 90 to 99 %. Two policies' biases differ where their calibration does and do not cancel, so the interval
   of a difference is all that the two intervals allow (`difference`): 94 to 100 %, wider than a paired one.
2. Risk-coverage: answer the most confident prompts alone; the risk is the share of errors among them. AURC is its
   mean over the prompts (Geifman & El-Yaniv 2017). A threshold takes or leaves prompts of equal confidence together.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from memedynamics.stats import interval, ratio

BINS = 10


class BoundedEce(NamedTuple):
    """An ECE, its interval, and draws (R,) of what a calibrated model would show."""

    value: float
    low: float
    high: float
    null: np.ndarray


class RiskCoverage(NamedTuple):
    """`aurc` (R,) and `risk` (R, C) at C coverages."""

    aurc: np.ndarray
    risk: np.ndarray


def confidence(q: np.ndarray) -> np.ndarray:
    """max(q, 1 − q), element-wise: from ½ to 1."""
    return np.maximum(q, 1 - q)


def wrong(q: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the decision q ≥ ½ differs from the label 0 or 1, element-wise: bool."""
    return (q >= 0.5) != (labels == 1)


def equal_mass(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Bin of each item (n,) by the rank of its confidence; bins differ by at most one item."""
    rank = np.argsort(np.argsort(confidence, kind="stable"), kind="stable")
    return rank * min(bins, len(rank)) // max(len(rank), 1)


def ece(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray | None = None, bins: int = BINS) -> np.ndarray:
    """Expected calibration error, one a row of `weights` (R, n), without them one: (R,). NaN without items."""
    weights = _weights(weights, len(confidence))
    gap = _per_bin(confidence, (right - confidence) * weights, bins)
    return ratio(np.abs(gap).sum(1), weights.sum(1))


def calibrated_ece(confidence: np.ndarray, draws: int, name: str = "") -> np.ndarray:
    """ECE (draws,) of a calibrated model: each decision right with its confidence (Bröcker & Smith 2007).

    Equal `name` and n, equal draws.
    """
    rng = np.random.default_rng([zlib.crc32(name.encode()), len(confidence)])
    right = rng.random((draws, len(confidence))) < confidence
    return ratio(np.abs(_per_bin(confidence, right - confidence, BINS)).sum(1), np.full(draws, len(confidence)))


def bounded_ece(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray) -> BoundedEce:
    """ECE of n items with its 95 % interval from the resamples `weights` (R, n), and R draws of its null."""
    value, null = ece(confidence, right)[0], calibrated_ece(confidence, len(weights))
    replicates = ece(confidence, right, weights)
    if np.isnan(value):
        return BoundedEce(value, np.nan, np.nan, null)
    excess = np.nanmean(replicates) - value
    low, high = interval(replicates)
    low = 0.0 if value <= interval(null)[1] else np.clip(low - 2 * excess, 0, value)
    return BoundedEce(float(value), float(low), float(max(high - excess, value)), null)


def difference(one: BoundedEce, other: BoundedEce) -> tuple[float, float, float]:
    """`one` minus `other`: value, and the least and greatest difference that both intervals allow."""
    return one.value - other.value, one.low - other.high, one.high - other.low


def risk_coverage(
    confidence: np.ndarray, wrong: np.ndarray, coverages: Sequence[float], weights: np.ndarray | None = None
) -> RiskCoverage:
    """AURC, and the risk at the least threshold that answers each of `coverages` (share of items); `weights` (R, n)."""
    order = np.argsort(-confidence, kind="stable")
    ranked = -confidence[order]
    block_end = np.searchsorted(ranked, ranked, "right") - 1
    weight = _weights(weights, len(order))[:, order]
    answered, errors = weight.cumsum(1)[:, block_end], (weight * wrong[order]).cumsum(1)[:, block_end]
    risk = ratio(errors, answered)
    total = weight.sum(1)
    aurc = ratio((weight * np.nan_to_num(risk)).sum(1), total)
    if not len(order):
        return RiskCoverage(aurc, np.full((len(weight), len(coverages)), np.nan))
    first = [(answered < c * total[:, None] * (1 - 1e-12)).sum(1) for c in coverages]
    return RiskCoverage(aurc, np.stack([risk[np.arange(len(risk)), at] for at in first], axis=1))


def _weights(weights: np.ndarray | None, n: int) -> np.ndarray:
    return np.ones((1, n)) if weights is None else weights


def _per_bin(confidence: np.ndarray, values: np.ndarray, bins: int) -> np.ndarray:
    """Sums of `values` (R, n) over each bin of equal mass: (R, bins)."""
    member = equal_mass(confidence, bins)[:, None] == np.arange(min(bins, len(confidence)))
    return values @ member.astype(float)
