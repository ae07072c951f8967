"""When a study may say that one method differs from another: prompts, seeds and the other claims must all agree.

1. A claim rests on one paired difference for each seed that both methods have, with its cluster bootstrap interval. A
   bootstrap of C clusters is too narrow by √((C−1)/C) and no better than a t of C − 1 degrees of freedom; below
   ten clusters nothing is decided. A difference without an interval, or one without width, has no p.
2. A claim's p is the largest of its seeds' (intersection-union test, Berger 1982): it holds for all or not at all. One
   seed without a p leaves it undecided.
3. Every run of the one method must lie on the same side of every run of the other, seeds crossed; and there must be two
   seeds: what training noise does, no interval over prompts shows.
4. Holm's correction runs over all claims of a summary.
5. Relations across runs: ρ is over runs (n = runs), p is over methods, whose seeds are alike: methods' means in all
   orders, so four methods cannot reach .05.
What fails is `not decided`, which is not the same as equal.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from scipy.stats import t

from memedynamics.relations import correlation_interval, rank_correlation
from memedynamics.stats import holm

ALPHA = 0.05
FEWEST = 10  # clusters below which an interval is no basis for a claim
MOST = 8  # methods whose orders are all gone through
UNDECIDED = "not decided by this data"
ONE_SEED = "not decided: one seed"
FEW = f"not decided: under {FEWEST} clusters"
NO_INTERVAL = "not decided: no usable interval"


class Difference(NamedTuple):
    """One paired difference with its 95 % interval, and how many clusters that rests on."""

    value: float
    low: float
    high: float
    clusters: int


class Evidence(NamedTuple):
    """What a claim rests on: its p before Holm's correction, which way all of it points (1, -1; 0: not one way), and
    why nothing can be decided, where that is so.
    """

    p: float
    sign: int
    reason: str | None = None


class Relation(NamedTuple):
    """Spearman's correlation across runs, its 95 % interval and the two-sided p of all orders of the methods."""

    rho: float
    low: float
    high: float
    p: float
    n: int


def p_value(difference: Difference) -> float:
    """Two-sided p of no difference; NaN without an interval, without width, or with fewer than two clusters."""
    clusters = difference.clusters
    error = (difference.high - difference.low) / (2 * 1.959964)
    if not np.isfinite(error) or error <= 0 or clusters < 2 or not np.isfinite(difference.value):
        return float("nan")
    error *= np.sqrt(clusters / (clusters - 1))
    return float(2 * t.sf(abs(difference.value) / error, clusters - 1))


def evidence(paired: Sequence[Difference | None], ours: Sequence[float], theirs: Sequence[float]) -> Evidence:
    """Evidence of `paired`, one a common seed (None: it has no difference); `ours`, `theirs`: values of all runs."""
    crossed = {int(np.sign(a - b)) for a in ours for b in theirs} | {int(np.sign(d.value)) for d in paired if d}
    sign = crossed.pop() if len(crossed) == 1 else 0
    p = [p_value(d) if d else float("nan") for d in paired]
    if not p or np.isnan(p).any():
        return Evidence(float("nan"), sign, NO_INTERVAL if p else UNDECIDED)
    few = min(d.clusters for d in paired) < FEWEST
    return Evidence(max(p), sign, ONE_SEED if len(p) == 1 else FEW if few else None)


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
    if found.reason:
        return found.reason
    if not p < ALPHA or found.sign == 0:
        return UNDECIDED
    return answers[0] if found.sign > 0 else answers[1]


def relation(x: Sequence[float], y: Sequence[float], methods: Sequence[str]) -> Relation:
    """Spearman's correlation of two numbers a run; `methods` says whose run each is.

    p is the share of orders of the methods' mean x whose correlation with their mean y is as large. NaN below four runs
    or three methods, and above eight.
    """
    x, y, owners = np.asarray(x, float), np.asarray(y, float), np.asarray(methods)
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Relation(*[float("nan")] * 4, len(x))
    rho = float(rank_correlation(x, y))
    return Relation(rho, *correlation_interval(rho, len(x)), _by_method(x, y, owners), len(x))


def _by_method(x: np.ndarray, y: np.ndarray, owners: np.ndarray) -> float:
    names = np.unique(owners)
    if not 3 <= len(names) <= MOST:
        return float("nan")
    a, b = (np.array([z[owners == name].mean() for name in names]) for z in (x, y))
    orders = np.array(list(permutations(a)))
    drawn = np.abs(rank_correlation(orders, np.broadcast_to(b, orders.shape)))
    return float(np.mean(drawn >= np.abs(rank_correlation(a, b)) - 1e-12))
