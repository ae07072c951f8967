"""The losses of entropy minimisation on tensors: a decision's entropy, a mean over tokens, a sequence's by REINFORCE.

All in nat. `entropy_minimisation` says what they are taken of.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from memedynamics.answers import Labels
from memedynamics.errors import InputError


def binary_entropy(logits: Tensor) -> Tensor:
    """Entropy in nat of a yes-or-no choice with log-odds `logits`, of any shape: log(1 + e^z) − z σ(z)."""
    return softplus(logits) - logits * logits.sigmoid()


def decision_logits(hidden: Tensor, head: nn.Linear, labels: Labels) -> Tensor:
    """log P(yes) − log P(no) (N,) at the states `hidden` (N, d), in float32.

    `labels` are `one_token`. The rest of the vocabulary cancels, so a few rows of the head are all it takes.
    """
    first = torch.tensor([spelling[0] for spelling in labels.spellings], device=hidden.device)
    bias = None if head.bias is None else head.bias[first].float()
    logits = linear(hidden.float(), head.weight[first].float(), bias)
    is_yes = labels.is_yes.to(hidden.device)
    return logits[:, is_yes].logsumexp(-1) - logits[:, ~is_yes].logsumexp(-1)


def one_token(labels: Labels) -> Labels:
    """`labels` without the spellings of several tokens; raises InputError where yes or no has no other."""
    found, single = copy.copy(labels), [len(spelling) == 1 for spelling in labels.spellings]
    found.spellings = [spelling for spelling, kept in zip(labels.spellings, single, strict=True) if kept]
    found.is_yes, found.tails = labels.is_yes[torch.tensor(single)], []
    if found.is_yes.all() or not found.is_yes.any():
        raise InputError("em: no spelling of yes or of no is one token of this model; change the prompt's labels")
    return found


def mean(values: Tensor, where: Tensor) -> Tensor:
    """The mean of `values` where `where` (same shape) holds; 0, with gradients of 0, where it holds nowhere."""
    return (values * where).sum() / where.sum().clamp(min=1)


def leave_one_out(logps: Tensor, kept: Tensor, group: int) -> Tensor:
    """Advantages (N,) of responses with log π `logps` (N,), nat: over the mean of the others of the group.

    Groups of `group` follow each other. Only those `kept` (N,) count; alone in its group a response has none.
    """
    logps, kept = logps.view(-1, group), kept.view(-1, group).to(logps.dtype)
    others = kept.sum(1, keepdim=True) - kept
    baseline = ((logps * kept).sum(1, keepdim=True) - logps * kept) / others.clamp(min=1)
    return ((logps - baseline) * kept * (others > 0)).flatten()


def sequence_loss(logps: Tensor, advantages: Tensor, kept: Tensor) -> Tensor:
    """−mean log π(y) over the responses `kept`, nat, with the gradient of −mean A log π(y); all are (N,)."""
    surrogate = mean(-advantages * logps, kept)
    return surrogate + (mean(-logps, kept) - surrogate).detach()
