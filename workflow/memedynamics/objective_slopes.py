"""Derivatives of the objectives' three scalars by the hidden states, written out: log π, decision log-odds, entropy.

1. Logits exist for CHUNK positions at a time; only gradients of hidden states are kept.
2. Token entropies are differentiated at the prefixes drawn: what em_token leaves out is the prefixes' own gradient.
3. A label of several tokens is read at its first one; tokens that begin both labels do not count.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor

from memedynamics import forcing, vlm
from memedynamics.decision_gradients import FirstTokens

CHUNK = 1024  # positions whose logits are held at once


class Slopes(NamedTuple):
    """Derivatives by the states (N, R, d) of the rows' log π, decision log-odds and summed entropies."""

    sequence: Tensor
    decision: Tensor
    entropy: Tensor


@torch.no_grad()
def slopes_of(model: PeftModel, states: Tensor, texts: Sequence[forcing.Text], answers: FirstTokens) -> Slopes:
    """Slopes at `states` (N, R, d), of which [n, t] predicts token t of text n.

    With p = softmax(z): ∂log p_y/∂z = 1_y − p, ∂H/∂z = −p (log p + H), and for the log-odds of two token sets
    softmax over the one minus softmax over the other; ∂z/∂h is the head's weight.
    """
    rows = [n for n, text in enumerate(texts) for _ in text.tokens]
    at = [t for text in texts for t in range(len(text.tokens))]
    targets = torch.tensor([token for text in texts for token in text.tokens], device=states.device)
    found = Slopes(*(torch.zeros_like(states) for _ in range(3)))
    for start in range(0, len(rows), CHUNK):
        here = slice(start, start + CHUNK)
        logp = vlm.project(model, states[rows[here], at[here]]).log_softmax(-1)
        p = logp.exp()
        entropy = -(p * logp).sum(-1, keepdim=True)
        found.entropy[rows[here], at[here]] = _back(model, -p * (logp + entropy), states.dtype)
        found.sequence[rows[here], at[here]] = _back(model, _one_hot(targets[here], p) - p, states.dtype)
    decided = list(range(len(texts))), [text.decision for text in texts]
    logits = vlm.project(model, states[decided])
    slope = torch.zeros_like(logits)
    for tokens, sign in zip(answers, (1, -1), strict=True):
        slope[:, tokens] = sign * logits[:, tokens].softmax(-1)
    found.decision[decided] = _back(model, slope, states.dtype)
    return found


def _back(model: PeftModel, slope: Tensor, dtype: torch.dtype) -> Tensor:
    weight = vlm.bare(model).lm_head.weight
    return (slope.to(weight.dtype) @ weight).to(dtype)


def _one_hot(targets: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(1, targets[:, None], 1.0)
