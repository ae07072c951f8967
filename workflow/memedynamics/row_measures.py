"""What attention rows say: shares, what is left without sinks, and how far two rows are apart.

A row (…, T) is a distribution over a prompt's tokens; padding holds 0. `member` (B, T, S) has a 1 where a token
belongs to a group, so groups are sums.
"""

import torch
from torch import Tensor

SINK = 0.2  # a token with more than this of the reference's clean row draws attention whatever it says


def membership(codes: Tensor, groups: int) -> Tensor:
    """(B, T, groups) float32, 1 where `codes` (B, T) names the group; negative codes belong to none."""
    return torch.nn.functional.one_hot(codes.long() + 1, groups + 1)[..., 1:].float()


def shares(rows: Tensor, member: Tensor) -> Tensor:
    """Share of `rows` (L, B, H, T) on each group of `member` (B, T, S): (L, B, H, S)."""
    return rows @ member


def sinks(rows: Tensor) -> Tensor:
    """(L, B, T) bool: tokens with over SINK of `rows` (L, B, H, T) in their mean over heads."""
    return rows.mean(2) > SINK


def sinkless(rows: Tensor, member: Tensor, sink: Tensor) -> Tensor:
    """Shares of what `rows` (L, B, H, T) spend outside `sink` (L, B, T): (L, B, H, S); NaN where that is nothing."""
    kept = rows * ~sink[:, :, None]
    return shares(kept, member) / kept.sum(-1, keepdim=True)


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """½ Σ|p − q| over the last axis, 0 … 1."""
    return (p - q).abs().sum(-1) / 2


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """½ KL(p‖m) + ½ KL(q‖m) with m = (p + q)/2 over the last axis, nat, 0 … ln 2 (Lin 1991)."""
    middle = (p + q) / 2
    return ((_relative(p, middle) + _relative(q, middle)) / 2).clamp(min=0)


def _relative(p: Tensor, q: Tensor) -> Tensor:
    # 0 log 0 = 0; q = 0 only where p is.
    tiny = torch.finfo(p.dtype).tiny
    return (p * (p.clamp(min=tiny) / q.clamp(min=tiny)).log()).sum(-1)
