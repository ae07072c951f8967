"""When a study may say that one method differs from another: prompts, seeds and the other claims must all agree.

1. A claim rests on one paired difference for each seed that both methods have; each interval is over prompts. Its p is
   the largest of those of the seeds (intersection-union test, Berger 1982): it holds for all of them or not at all.
2. Holm's correction runs over all claims of a summary.
3. Besides, every run of the one method must lie on the same side of every run of the other, seeds crossed; and there
   must be two seeds: what training noise does, no interval over prompts shows.
4. What fails is `not decided`, which is not the same as equal.
A relation across runs has n = runs; seeds of one method are alike, so its p is that of a claim about such runs only.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, permutation_test

from memedynamics.relations import correlation_interval, rank_correlation
from memedynamics.stats import holm

ALPHA = 0.05
UNDECIDED = "not decided by this data"
ONE_SEED = "not decided: one seed"
EXACT = 7  # runs up to which all orders are gone through


class Difference(NamedTuple):
    """One paired difference with its 95 % interval."""

    value: float
    low: float
    high: float


class Evidence(NamedTuple):
    """What a claim rests on: its p before Holm's correction, and which way all of it points (1, -1; 0: not one way)."""

    p: float
    sign: int
    seeds: int


class Relation(NamedTuple):
    """Spearman's correlation across runs, its 95 % interval and two-sided permutation p."""

    rho: float
    low: float
    high: float
    p: float
    n: int


def p_value(difference: Difference) -> float:
    """Two-sided p of no difference: the interval read as value ± 1.96 standard errors. NaN without an interval."""
    error = (difference.high - difference.low) / (2 * norm.ppf(0.975))
    if not np.isfinite(error) or not np.isfinite(difference.value):
        return float("nan")
    if error == 0:
        return 0.0 if difference.value else 1.0
    return float(2 * norm.sf(abs(difference.value) / error))


def evidence(paired: Sequence[Difference], ours: Sequence[float], theirs: Sequence[float]) -> Evidence:
    """Evidence of `paired`, one difference a common seed; `ours`, `theirs` are the values of all runs of the two.

    p is NaN where nothing is paired.
    """
    if not paired:
        return Evidence(float("nan"), 0, 0)
    crossed = {int(np.sign(a - b)) for a in ours for b in theirs} | {int(np.sign(d.value)) for d in paired}
    sign = crossed.pop() if len(crossed) == 1 else 0
    return Evidence(max(map(p_value, paired)), sign, len(paired))


def verdicts(found: Sequence[Evidence], answers: Sequence[tuple[str, str]]) -> tuple[np.ndarray, list[str]]:
    """Holm's p (n,) and the verdict of each claim: its answer for sign 1 or −1, or that it is not decided.

    Claims without a p keep NaN and do not count as tests.
    """
    p = np.array([one.p for one in found], float)
    tested = np.isfinite(p)
    adjusted = np.full(len(p), np.nan)
    if tested.any():
        adjusted[tested] = holm(p[tested])
    return adjusted, [_verdict(*each) for each in zip(found, adjusted, answers, strict=True)]


def _verdict(found: Evidence, p: float, answers: tuple[str, str]) -> str:
    if found.seeds == 1:
        return ONE_SEED
    if not p < ALPHA or found.sign == 0:
        return UNDECIDED
    return answers[0] if found.sign > 0 else answers[1]


def relation(x: Sequence[float], y: Sequence[float]) -> Relation:
    """Spearman's correlation of two numbers a run, p by permutation: exact for up to seven runs.

    All NaN below four runs, where no order could be surprising.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Relation(*[float("nan")] * 4, len(x))
    rho = float(rank_correlation(x, y))
    resamples = np.inf if len(x) <= EXACT else 9999

    def statistic(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        return rank_correlation(np.moveaxis(drawn, axis, -1), y)

    found = permutation_test(
        (x,),
        statistic,
        permutation_type="pairings",
        n_resamples=resamples,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return Relation(rho, *correlation_interval(rho, len(x)), float(found.pvalue), len(x))
