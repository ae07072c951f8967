"""Before training: the share of groups that will give GRPO no signal, from the base's own samples.

1. A group of G completions to one prompt has no advantage when all get the same reward. With π_c the chance of
   reward c that is Σ_c π_c^G for the base. Outcomes are distinct total rewards: with the study's two rewards those are
   the four joint outcomes (format, accuracy), and the total is what TRL takes the standard deviation of.
2. unbiased: Σ_c C(n_c, G)/C(K, G), from the n_c of K base samples, needs G ≤ K. plug_in: Σ_c (n_c/K)^G is biased
   upwards: at K = G = 8 and π = (.9, .1) it reads .58 on average for a true .43.
3. Prompts that were kept because their base samples differ (`train_prompts: paired`) were chosen on the counts that
   both of these use: at K = G the unbiased one is 0 for every such prompt by construction. posterior: E[Σ_c π_c^G | n]
   under a Dirichlet prior fitted to all train prompts; given n the choice tells nothing more, so it holds for chosen
   prompts too, and for any G.
"""

import numpy as np
import polars as pl
from scipy.special import betaln, digamma, gammaln

PROMPT = ["dataset", "split", "id"]
ESTIMATORS = ("unbiased", "plug_in", "posterior")
DIGITS = 6  # rewards that agree to as many decimals are one outcome
MOST_OUTCOMES = 32  # beyond, a reward is rather continuous than an outcome: no prior


def counts(samples: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray]:
    """The prompts (dataset, split, id; sorted) of base `samples`, and how often each got each reward (n, outcomes)."""
    memes = samples.select(PROMPT).unique().sort(PROMPT)
    outcome = samples["reward"].round(DIGITS)
    kinds = pl.DataFrame({"outcome": outcome.unique().sort()}).with_row_index("_outcome")
    placed = samples.with_columns(outcome=outcome).join(kinds, on="outcome")
    placed = placed.join(memes.with_row_index("_meme"), on=PROMPT)
    found = np.zeros((len(memes), len(kinds)))
    np.add.at(found, (placed["_meme"].to_numpy(), placed["_outcome"].to_numpy()), 1)
    return memes, found


def plug_in(found: np.ndarray, group: int) -> np.ndarray:
    """Σ_c (n_c/K)^`group` of each row of counts `found` (n, outcomes): (n,)."""
    return ((found / found.sum(axis=1, keepdims=True)) ** group).sum(axis=1)


def unbiased(found: np.ndarray, group: int) -> np.ndarray:
    """Σ_c C(n_c, G)/C(K, G), G = `group`, of each row of counts `found` (n, outcomes): (n,); NaN where K < G."""
    total = found.sum(axis=1)
    drawn = _log_choose(found, group) - _log_choose(total, group)[:, None]
    return np.where(total < group, np.nan, np.exp(drawn).sum(axis=1, where=found >= group))


def _log_choose(n: np.ndarray, k: int) -> np.ndarray:
    return -np.log(np.maximum(n, k) + 1) - betaln(np.maximum(n, k) - k + 1, k + 1)


def dirichlet(found: np.ndarray, steps: int = 2000, tolerance: float = 1e-9) -> np.ndarray:
    """Parameters (outcomes,) of the Dirichlet prior under which counts `found` (n, outcomes) are most likely.

    Minka's fixed point for the Dirichlet-multinomial (Estimating a Dirichlet distribution, 2000, eq. 55). Outcomes
    that all prompts share keep the parameters finite by a total of at most 1e4.
    """
    total, share = found.sum(axis=1), found.sum(axis=0) / found.sum()
    alpha = share * found.shape[1]
    for _ in range(steps):
        up = (digamma(found + alpha) - digamma(alpha)).sum(axis=0)
        down = (digamma(total + alpha.sum()) - digamma(alpha.sum())).sum()
        fitted = np.maximum(alpha * up / down, 1e-12)
        fitted *= min(1.0, 1e4 / fitted.sum())
        if np.abs(fitted - alpha).max() < tolerance * fitted.sum():
            return fitted
        alpha = fitted
    return alpha


def posterior(found: np.ndarray, group: int, alpha: np.ndarray) -> np.ndarray:
    """E[Σ_c π_c^`group` | counts] of each row of `found` (n, outcomes) under the prior Dirichlet(`alpha`): (n,).

    Π_{g<G} (α_c + n_c + g)/(A + K + g), the chance that the next G draws are all c (Pólya's urn), summed over c.
    """
    after = found + alpha
    total = after.sum(axis=1, keepdims=True)
    each = gammaln(after + group) - gammaln(after) - gammaln(total + group) + gammaln(total)
    return np.exp(each).sum(axis=1)


def forecast(samples: pl.DataFrame, group: int) -> pl.DataFrame:
    """ESTIMATORS for each prompt (dataset, split, id) of base `samples` (with reward), all prompts of a split.

    `unbiased` is NaN where a prompt has fewer samples than `group`, `posterior` beyond MOST_OUTCOMES rewards.
    """
    memes, found = counts(samples)
    known = found.shape[1] <= MOST_OUTCOMES
    return memes.with_columns(
        unbiased=pl.Series(unbiased(found, group)),
        plug_in=pl.Series(plug_in(found, group)),
        posterior=pl.Series(posterior(found, group, dirichlet(found)) if known else np.full(len(memes), np.nan)),
    )
