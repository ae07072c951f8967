"""The methods' objectives: weights w(p) on ∇p, and what each makes of the samples to one prompt. Pure numpy.

1. With p = P(correct | prompt) each method ascends w(p)∇p in expectation (docs/theory.md derives every line): the first
   half of this module is those weights, element-wise over `p` (…,), inside (0, 1).
2. On samples each objective's gradient is Σ_k c_k ∇s_k: s_k is log π(y_k) for SEQUENCE objectives, the log-odds of yes
   after the response's own text for DECISION, the summed token entropies along the response for ENTROPY.
   `coefficients` gives the c_k, with the sign of ascent.
3. Correct counts, not the format: the theory is about p. `grpo_reward` is GRPO on the study's whole reward.
4. `grpo_decision` is GRPO of the answer alone, each response's own text before it given, in expectation over groups of
   answers: w(q)∇q with q = P(right answer | that text). It has none of the noise of sampled answers.
5. Everything is on-policy: samples, pairs, baselines and advantages are those of the policy whose gradient is taken.
"""

from math import comb
from typing import NamedTuple

import numpy as np

SEQUENCE = ("sft_chosen", "rft", "reinforce", "dr_grpo", "grpo", "grpo_reward", "dpo", "em_sequence")
DECISION = ("sft_label", "grpo_decision", "em_decision")
ENTROPY = ("em_token",)
OBJECTIVES = (*SEQUENCE, *DECISION, *ENTROPY)
EPSILON = 1e-4  # TRL's guard against a group without variance
RESOLUTION = 1e-7  # float32's: how near to 0 and 1 a stored probability is believed


def sft(p: np.ndarray) -> np.ndarray:
    """SFT on the label, or on one correct response a prompt drawn from the policy itself: 1/p (theory 4, 5)."""
    return 1 / np.asarray(p, float)


def reinforce(p: np.ndarray) -> np.ndarray:
    """REINFORCE with reward 1 for a correct answer, and SFT on all correct samples of the policy: 1 (theory 1, 6)."""
    return np.ones_like(np.asarray(p, float))


def dr_grpo(p: np.ndarray, group: int) -> np.ndarray:
    """Dr. GRPO (2503.20783), no division by the spread: 1 − 1/G for groups of G (theory 8)."""
    return reinforce(p) * (1 - 1 / group)


def grpo(p: np.ndarray, group: int | None = None) -> np.ndarray:
    """GRPO (2402.03300): E√(ĉ(1−ĉ)) / (p(1−p)) over ĉ ~ Binomial(G, p)/G, its limit 1/√(p(1−p)) without `group`.

    The spread is the sample standard deviation (divisor G−1), as TRL takes it, with ε = 0 (theory 10, 11).
    """
    p = np.asarray(p, float)
    if group is None:
        return 1 / np.sqrt(p * (1 - p))
    spread = sum(_binomial(count, group, p) * np.sqrt(count * (group - count)) for count in range(group + 1)) / group
    return np.sqrt((group - 1) / group) * spread / (p * (1 - p))


def _binomial(count: int, group: int, p: np.ndarray) -> np.ndarray:
    return comb(group, count) * p**count * (1 - p) ** (group - count)


def dpo(p: np.ndarray, reference: np.ndarray, beta: float) -> np.ndarray:
    """DPO (2305.18290) on a right and a wrong answer: βσ(−β(logit p − logit p0)) / (p(1−p)) (theory 13)."""
    p = np.asarray(p, float)
    return beta * sigmoid(-beta * (logit(p) - logit(reference))) / (p * (1 - p))


def em_decision(p: np.ndarray) -> np.ndarray:
    """Minimising the entropy of a yes/no decision: logit p, negative below ½ (theory 15)."""
    return logit(p)


def em_gated(p: np.ndarray) -> np.ndarray:
    """The same only where the label is the likelier answer: max(0, logit p) (theory 16)."""
    return np.maximum(0, logit(p))


def logit(p: np.ndarray) -> np.ndarray:
    """log p/(1−p), with p kept RESOLUTION from 0 and 1."""
    p = np.clip(np.asarray(p, float), RESOLUTION, 1 - RESOLUTION)
    return np.log(p) - np.log1p(-p)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1/(1 + e^−x), stable on both sides."""
    return np.exp(-np.logaddexp(0, -np.asarray(x, float)))


class Drawn(NamedTuple):
    """The K samples of a policy to one prompt; arrays are (K,)."""

    correct: np.ndarray  # 1 where the answer is the label
    reward: np.ndarray  # the study's whole reward
    logp: np.ndarray  # log π of the response, nat
    p_yes: np.ndarray  # P(yes) at the answer, after the response's own text
    label: int  # 1 where yes is right
    pair: tuple[int, int] | None  # indices of chosen and rejected; None where the prompt gives no pair
    log_ratio: float  # of the pair: log π/π0 of the chosen minus that of the rejected, nat


def coefficients(drawn: Drawn, baseline: float, beta: float, group: int) -> dict[str, np.ndarray]:
    """Each objective's c (K,) on one prompt's samples; zero where the objective has nothing to learn from them.

    `baseline`: REINFORCE's, the mean correctness over the batch's other prompts.
    """
    count = len(drawn.correct)
    chosen, pair = np.zeros(count), np.zeros(count)
    if drawn.pair is not None:
        chosen[drawn.pair[0]] = 1.0
        pair[drawn.pair[0]], pair[drawn.pair[1]] = 1.0, -1.0
    q = np.clip(drawn.p_yes, RESOLUTION, 1 - RESOLUTION)
    return {
        "sft_chosen": chosen,
        "rft": drawn.correct / count,
        "reinforce": (drawn.correct - baseline) / count,
        "dr_grpo": advantages(drawn.correct, group, scaled=False) / count,
        "grpo": advantages(drawn.correct, group) / count,
        "grpo_reward": advantages(drawn.reward, group) / count,
        "dpo": beta * sigmoid(-beta * drawn.log_ratio) * pair,
        "em_sequence": (drawn.logp - others(drawn.logp)) / count,
        "sft_label": (drawn.label - q) / count,
        "grpo_decision": (2 * drawn.label - 1) * grpo(q if drawn.label else 1 - q, group) * q * (1 - q) / count,
        "em_decision": logit(q) * q * (1 - q) / count,
        "em_token": np.full(count, -1 / count),
    }


def advantages(rewards: np.ndarray, group: int, scaled: bool = True) -> np.ndarray:
    """Group-relative advantages (K,) of one prompt's `rewards`, in consecutive groups of `group`, at most K.

    (r − mean)/(std + 1e-4) with the sample standard deviation, as TRL forms them; `scaled` off is Dr. GRPO. What does
    not fill a group counts nothing, and the rest for as much more.
    """
    group = min(group, len(rewards))
    used = len(rewards) // group * group
    grouped = np.asarray(rewards[:used], float).reshape(-1, group)
    found = grouped - grouped.mean(1, keepdims=True)
    if scaled and group > 1:
        found = found / (grouped.std(1, ddof=1, keepdims=True) + EPSILON)
    return np.concatenate([found.ravel() * len(rewards) / used, np.zeros(len(rewards) - used)])


def others(values: np.ndarray) -> np.ndarray:
    """Mean of the other values, for each of `values` (K,): a baseline that a sample does not take part in."""
    if len(values) < 2:
        return np.zeros_like(values)
    return (values.sum() - values) / (len(values) - 1)
