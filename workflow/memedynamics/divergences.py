"""How two next-token distributions differ, exactly over the whole vocabulary.

Everything is computed per position from two blocks of logits, in their dtype (float32 or wider), in nats. Sums over
the vocabulary replace Monte Carlo estimates: unbiased, and with a variance never above theirs (Rao-Blackwellisation;
Amini et al. 2504.10637).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Distribution(NamedTuple):
    """A block of next-token distributions: `logp` and `p`, both (N, V)."""

    logp: Tensor
    p: Tensor


class Divergences(NamedTuple):
    """One value a position, all (N,): policy π against reference π0 at the target token y."""

    logp: Tensor  # log π(y)
    ref_logp: Tensor  # log π0(y)
    kl_forward: Tensor  # KL(π0‖π)
    kl_reverse: Tensor  # KL(π‖π0)
    entropy: Tensor  # −Σ π log π
    acceptance: Tensor  # Σ min(π, π0) = 1 − total variation
    rank: Tensor  # tokens that π prefers to y, a whole number; 0 is the argmax


def distribution(logits: Tensor) -> Distribution:
    """The distributions that `logits` (N, V) describe."""
    logp = logits.log_softmax(-1)
    return Distribution(logp, logp.exp())


def compare(logits: Tensor, reference: Distribution, targets: Tensor) -> Divergences:
    """π, given by `logits` (N, V), against π0 at `targets` (N,).

    KL(π0‖π) = Σ π0 log(π0/π) is taken as Σ (π0 log(π0/π) + π − π0), likewise the reverse: the two agree because both
    distributions sum to 1, and in the second the rounding of the normalisers cancels to first order, so that small
    divergences keep their digits. Equal logits give exactly 0, acceptance 1.
    """
    at = targets.unsqueeze(-1)
    # A float buffer: summing booleans is an order of magnitude slower on a CPU; counts below 2^24 are exact.
    rank = torch.gt(logits, logits.gather(-1, at), out=torch.empty_like(logits)).sum(-1)
    logp, p = distribution(logits)
    target_logp = logp.gather(-1, at).squeeze(-1)
    entropy = -torch.linalg.vecdot(p, logp)
    log_ratio = logp.sub_(reference.logp)
    forward, reverse = -torch.linalg.vecdot(reference.p, log_ratio), torch.linalg.vecdot(p, log_ratio)
    excess = p.sub_(reference.p)
    total = excess.sum(-1)
    return Divergences(
        target_logp,
        reference.logp.gather(-1, at).squeeze(-1),
        (forward + total).clamp_(min=0),
        (reverse - total).clamp_(min=0),
        entropy,
        1 - torch.linalg.vector_norm(excess, 1, dim=-1) / 2,
        rank,
    )
