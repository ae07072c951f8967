"""When a study may say that one method differs from another: prompts, seeds and the other claims must all agree.

1. A claim rests on one paired difference for each seed that both methods have, with its cluster bootstrap interval. A
   bootstrap of C clusters is too narrow by √((C−1)/C) and no better than a t of C − 1 degrees of freedom; below
   ten clusters nothing is decided. A difference without an interval, or one without width, has no p.
2. A claim's p is the largest of its seeds' (intersection-union test, Berger 1982): it holds for all or not at all. One
   seed without a p leaves it undecided.
3. Every run of the one method must lie on the same side of every run of the other, seeds crossed; and there must be two
   seeds: what training noise does, no interval over prompts shows. Seeds that disagree are a reason of their own,
   whatever p is: more prompts would not help.
4. Relations across runs: ρ and its interval are over runs, p is over methods, whose seeds are alike: methods' means in
   all orders. With M methods p is at least 2/M!: .33, .083, .017, .003 for three to six. A study asks three such
   relations or more, one an out-of-domain set, so that Holm's correction leaves five methods .05 at best: under six
   nothing is decided.
5. Holm's correction runs over all claims of a summary that can be decided at all: what the number of seeds, clusters
   or methods rules out beforehand has no p, is no test, and costs the others no power.
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
FEWEST_METHODS = 6  # methods below which no order of theirs is rare enough
MOST = 8  # methods whose orders are all gone through; of more, ORDERS are drawn
ORDERS = 10_000
UNDECIDED = "not decided by this data"
ONE_SEED = "not decided: one seed"
FEW = f"not decided: under {FEWEST} clusters"
FEW_METHODS = f"not decided: under {FEWEST_METHODS} methods"
SEEDS = "not decided: seeds disagree"
NO_INTERVAL = "not decided: no usable interval"


class Difference(NamedTuple):
    """One paired difference with its 95 % interval, and how many clusters that rests on."""

    value: float
    low: float
    high: float
    clusters: int


class Evidence(NamedTuple):
    """What a claim rests on: its p before Holm's correction (NaN: it is no test), which way all of it points (1, -1;
    0: not one way), why nothing can be decided, where that is so, and whether two seeds or more agree (None: fewer).
    """

    p: float
    sign: int
    reason: str | None = None
    agree: bool | None = None


class Relation(NamedTuple):
    """Spearman's correlation across `n` runs of `methods` methods, its 95 % interval, and the evidence it gives."""

    rho: float
    low: float
    high: float
    n: int
    methods: int
    evidence: Evidence


def p_value(difference: Difference) -> float:
    """Two-sided p of no difference; NaN without an interval, without width, or with fewer than two clusters."""
    clusters = difference.clusters
    error = (difference.high - difference.low) / (2 * 1.959964)
    if not np.isfinite(error) or error <= 0 or clusters < 2 or not np.isfinite(difference.value):
        return float("nan")
    error *= np.sqrt(clusters / (clusters - 1))
    return float(2 * t.sf(abs(difference.value) / error, clusters - 1))


def evidence(paired: Sequence[Difference | None], ours: Sequence[float], theirs: Sequence[float]) -> Evidence:
    """Evidence of `paired`, one a common seed (None: it has no difference); `ours`, `theirs`: values of all runs, none
    where a run has no value of its own but only a difference.
    """
    crossed = {int(np.sign(a - b)) for a in ours for b in theirs} | {int(np.sign(d.value)) for d in paired if d}
    sign = next(iter(crossed)) if len(crossed) == 1 else 0
    agree = len(crossed) == 1 if crossed and len(paired) > 1 else None
    p = float(np.max([p_value(d) if d else np.nan for d in paired])) if paired else float("nan")
    reason = _beforehand(paired, p)
    if reason:
        return Evidence(float("nan"), sign, reason, agree)
    return Evidence(p, sign, SEEDS if agree is False else None, agree)


def _beforehand(paired: Sequence[Difference | None], p: float) -> str | None:
    """Why there is nothing to test: no or one common seed, no interval, too few clusters."""
    if not paired or np.isnan(p):
        return NO_INTERVAL if paired else UNDECIDED
    if len(paired) == 1:
        return ONE_SEED
    return FEW if min(d.clusters for d in paired) < FEWEST else None


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

    p is the share of orders of the methods' mean x whose correlation with their mean y is as large (above eight
    methods: of ORDERS orders, the one found among them). Points one way where runs and methods' means do.
    """
    x, y, owners = np.asarray(x, float), np.asarray(y, float), np.asarray(methods)
    names = np.unique(owners)
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        rho, ends = float("nan"), (float("nan"), float("nan"))
    else:
        rho = float(rank_correlation(x, y))
        ends = correlation_interval(rho, len(x))
    if len(names) < FEWEST_METHODS:
        return Relation(rho, *ends, len(x), len(names), Evidence(float("nan"), 0, FEW_METHODS))
    means = [np.array([z[owners == name].mean() for name in names]) for z in (x, y)]
    between = float(rank_correlation(*means))
    p = float("nan") if np.isnan(between) else _share_of_orders(*means, abs(between))
    sign = int(np.sign(rho)) if rho * between > 0 else 0
    return Relation(rho, *ends, len(x), len(names), Evidence(p, sign))


def _share_of_orders(a: np.ndarray, b: np.ndarray, found: float) -> float:
    if len(a) <= MOST:
        orders = np.array(list(permutations(a)))
    else:
        drawn = np.random.default_rng(len(a)).permuted(np.tile(a, (ORDERS - 1, 1)), axis=1)
        orders = np.vstack([a, drawn])
    others = np.abs(rank_correlation(orders, np.broadcast_to(b, orders.shape)))
    return float(np.mean(others >= found - 1e-12))
