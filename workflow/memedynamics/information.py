"""Entropies of answers, what a rationale tells about the answer, and mutual information with permutation nulls; nat.

1. From K answers the plug-in entropy is too low, by about (O − 1)/(2K) for O outcomes in the middle (Miller 1955);
   adding that constant overshoots where an answer is all but certain. Beside it therefore stand the posterior mean
   under Jeffreys' prior and the Gini impurity, whose estimator is unbiased for every K ≥ 2.
2. H(mean_i q_i) over K rationales is biased low in the same way, less so the less the q_i differ: the jackknife takes
   out the 1/K term. mean_i H(q_i) is an average and has no such bias, so the information takes all of it.
3. A mutual information from n prompts is never negative and so too high, by about (A − 1)(B − 1)/(2n) for A × B
   outcomes where each prompt gives one answer; resampling the prompts adds about as much again, so that a percentile
   interval would leave out a true 0. `bounded_information` takes off the mean of the permutation null, and that excess
   of the resamples too; its interval starts at 0 where shuffled prompts would show the plug-in, and holds the value.
   Simulated at n from 50 to 500 and a true information from 0 to .5 nat, it holds the truth in 89 to 100 %.
"""

import zlib
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, entr, rel_entr

from memedynamics.stats import interval, ratio, resampled_sums


class Information(NamedTuple):
    """Mutual information of V curves, its interval and its plug-in, each (V,); draws (P, V) of the plug-in's null."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    plug_in: np.ndarray
    null: np.ndarray


class Decomposition(NamedTuple):
    """Entropy of the mean decision, its part within rationales, and the rest; `jackknifed_…` less biased. Each (…)."""

    total: np.ndarray
    given: np.ndarray
    information: np.ndarray
    jackknifed_total: np.ndarray
    jackknifed_information: np.ndarray


def entropy(p: np.ndarray) -> np.ndarray:
    """−Σ p log p over the last axis of probabilities (…, O), nat; 0 log 0 = 0."""
    return entr(p).sum(-1)


def binary(q: np.ndarray) -> np.ndarray:
    """(…, 2): q and 1 − q."""
    return np.stack([q, 1 - q], axis=-1)


def plug_in(counts: np.ndarray) -> np.ndarray:
    """Entropy of the shares of `counts` (…, O), nat; NaN where nothing was counted."""
    return entropy(_shares(counts))


def posterior_mean(counts: np.ndarray, prior: float = 0.5) -> np.ndarray:
    """Posterior mean of the entropy, nat, under a Dirichlet(prior, …, prior); NaN where nothing was counted.

    With a = counts + prior and A = Σ a: ψ(A + 1) − Σ (a/A) ψ(a + 1) (Wolpert & Wolf 1995). For O = 2 and ½: Beta(½, ½).
    """
    a = counts + prior
    total = a.sum(-1, keepdims=True)
    mean = digamma(total[..., 0] + 1) - (a / total * digamma(a + 1)).sum(-1)
    return np.where(counts.sum(-1) > 0, mean, np.nan)


def gini(counts: np.ndarray) -> np.ndarray:
    """Unbiased estimate of 1 − Σ p², from K draws: K/(K−1)·(1 − Σ p̂²), for two outcomes K/(K−1)·2p̂(1−p̂).

    The share of ordered pairs of different draws that disagree; NaN below two draws.
    """
    k = counts.sum(-1)
    return ratio(k**2 - (counts**2).sum(-1), k * (k - 1))


def decompose(q: np.ndarray, used: np.ndarray) -> Decomposition:
    """H(mean_i q_i) = mean_i H(q_i) + mean_i KL(q_i‖mean): what is open given the rationale, and what it settles.

    `q` (…, K, O): distribution of the decision after each of K rationales; `used` (…, K) bool. The identity is exact
    for both the plain terms and the jackknifed ones (k·T − (k−1)·mean of T with one left out; Quenouille 1956). NaN
    without a rationale, the jackknifed ones below two. The information is I(decision; rationale | x), BALD's epistemic
    term (Houlsby et al. 2011).
    """
    k = used.sum(-1).astype(float)
    kept = np.where(used[..., None], q, 0.0)
    mean = ratio(kept.sum(-2), np.broadcast_to(k[..., None], kept.sum(-2).shape))
    total, given = entropy(mean), ratio(entropy(kept).sum(-1), k)
    divergence = np.where(used, rel_entr(kept, mean[..., None, :]).sum(-1), 0.0)
    information = np.where(k > 0, ratio(divergence.sum(-1), k), np.nan)
    others = np.clip(kept.sum(-2, keepdims=True) - kept, 0, None) / np.maximum(k - 1, 1)[..., None, None]
    left_out = np.where(used, entropy(others), 0.0).sum(-1)
    jackknifed = np.where(k > 1, k * total - (k - 1) * ratio(left_out, k), np.nan)
    return Decomposition(total, given, information, jackknifed, jackknifed - given)


def mutual_information(joint: np.ndarray) -> np.ndarray:
    """Σ p log p/(p_a p_b) of weights `joint` (…, A, B), nat, plug-in: (…). NaN where all weights are 0."""
    p = _shares(joint.reshape(*joint.shape[:-2], -1)).reshape(joint.shape)
    whole = p.reshape(*p.shape[:-2], -1)
    return np.maximum(entropy(p.sum(-1)) + entropy(p.sum(-2)) - entropy(whole), 0.0)


def bounded_information(
    a: np.ndarray, b: np.ndarray, cluster: np.ndarray, weights: np.ndarray, name: str = ""
) -> Information:
    """Mutual information of V curves' outcomes `a` (n, V, A) with `b` (n, B), nat: freed of its bias, and bounded.

    `a` and `b` hold the shares of each outcome at each prompt; `cluster` (n,) and `weights` (R, clusters) resample the
    prompts. The null has R draws.
    """
    joint = a[..., :, None] * b[:, None, None, :]
    plug_in, drawn = mutual_information(joint.sum(0)), mutual_information(resampled_sums(joint, cluster, weights))
    null = permuted_information(a, b, len(weights), name)
    value = np.maximum(plug_in - _mean(null), 0.0)
    # The resamples' excess over the plug-in, and the plug-in's own over the truth.
    bias = _mean(drawn) - plug_in + _mean(null)
    low, high = (end - bias for end in interval(drawn))
    by_chance = plug_in <= interval(null)[1]
    return Information(value, np.where(by_chance, 0.0, np.clip(low, 0, value)), np.maximum(high, value), plug_in, null)


def permuted_information(a: np.ndarray, b: np.ndarray, permutations: int, name: str = "") -> np.ndarray:
    """Mutual information with the prompts of `b` shuffled: (permutations, V), draws of the null of independence.

    `a` (n, V, A), `b` (n, B): shares of each outcome at each prompt. Equal `name` and n, equal shuffles.
    """
    rng = np.random.default_rng([zlib.crc32(name.encode()), len(b)])
    order = rng.permuted(np.tile(np.arange(len(b)), (permutations, 1)), axis=1)
    shuffled = np.moveaxis(b[order], 0, 1).reshape(len(b), -1)
    joint = a.reshape(len(a), -1).T @ shuffled
    joint = joint.reshape(*a.shape[1:], permutations, b.shape[1])
    return mutual_information(np.moveaxis(joint, 2, 0))


def _mean(draws: np.ndarray) -> np.ndarray:
    """Mean over axis 0 of the draws that are defined; NaN where none is."""
    return ratio(np.nansum(draws, axis=0), (~np.isnan(draws)).sum(axis=0))


def _shares(counts: np.ndarray) -> np.ndarray:
    return ratio(counts, np.broadcast_to(counts.sum(-1, keepdims=True), counts.shape))
