"""How the updates of several runs become one, on one float32 matrix at a time.

1. linear: weighted mean. task_arithmetic: weighted sum, each 1 unless said otherwise (Ilharco et al. 2212.04089).
2. slerp (Shoemake 1985): along the great arc between two updates. The angle is that of the whole models' updates, each
   taken as one vector, not one angle a matrix as mergekit takes it: then all layers move at one pace along one curve in
   weight space, and what the layers weigh against each other stays what the runs made of it; a matrix that hardly
   changed has an angle that is noise. Updates of equal length keep it on the arc; between others the length passes from
   one to the other. Where the angle is near 0 or π no arc is determined: the straight line.
3. ties (Yadav et al. 2306.01708): in each matrix of each run the `density` largest entries stay (trim; the paper cuts
   once a model); each entry's sign is that of its weighted sum over runs (elect); the weighted mean of those that
   agree (disjoint merge). Weights say who counts how much, not how large the sum is: the paper's λ is 1.
4. dare (Yu et al. 2311.03099): each entry stays with probability `density`, divided by it, so that the expectation is
   the update itself; then the weighted sum. Drops depend on seed, run and matrix alone, on any machine.
5. A run that leaves a matrix alone counts as an update of 0 there.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memedynamics.errors import InputError
from memedynamics.methods import MergedMethod

PARALLEL = 1e-6  # |cos| this close to 1: no arc is determined


class Inner(NamedTuple):
    """Inner products of two updates over the whole model."""

    first: float  # ⟨a, a⟩
    both: float  # ⟨a, b⟩
    second: float  # ⟨b, b⟩

    @property
    def cosine(self) -> float:
        """Cosine of the angle between them; 1 where one of them is 0, so that slerp is a straight line."""
        size = math.sqrt(self.first * self.second)
        return max(-1.0, min(1.0, self.both / size)) if size else 1.0


def inner(first: Tensor, second: Tensor) -> Inner:
    """`Inner` of two matrices; those of a model add up, number by number."""
    pairs = ((first, first), (first, second), (second, second))
    return Inner(*(float((a * b).sum(dtype=torch.float64)) for a, b in pairs))


def slerp(t: float, cosine: float) -> tuple[float, float]:
    """Coefficients of two vectors at `t` of the way along the arc between them: sin((1−t)Ω)/sin Ω, sin(tΩ)/sin Ω."""
    if 1 - abs(cosine) < PARALLEL:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def coefficients(method: MergedMethod, found: Inner | None = None) -> dict[str, float]:
    """What each run of `method` is weighed with; slerp needs `found` of its two updates.

    Raises InputError where weights have no mean, or where slerp or ties are given negative ones.
    """
    given = method.weights or [1.0] * len(method.of)
    total = math.fsum(given)
    if method.how in ("task_arithmetic", "dare"):
        return dict(zip(method.of, given, strict=True))
    if total == 0:
        raise InputError(f"weights: {given} sum to 0, so {method.how} has no mean; give others")
    if method.how != "linear" and min(given) < 0:
        raise InputError(f"weights: {min(given)} is negative, which {method.how} cannot take; use task_arithmetic")
    shares = [weight / total for weight in given]
    if method.how == "slerp":
        shares = slerp(shares[1], found.cosine)
    return dict(zip(method.of, shares, strict=True))


def merged(method: MergedMethod, weights: Mapping[str, float], updates: Mapping[str, Tensor], name: str) -> Tensor:
    """The update of matrix `name` (out, in) from each run's `updates`, weighed with `coefficients`; float32."""
    parts, given = list(updates.values()), [weights[run] for run in updates]
    if method.how == "ties":
        return ties(parts, given, method.density)
    if method.how == "dare":
        seeds = [zlib.crc32(f"{method.seed}/{run}/{name}".encode()) for run in updates]
        return dare(parts, given, method.density, seeds)
    return weighted_sum(parts, given)


def weighted_sum(updates: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ w·ΔW."""
    total = updates[0] * weights[0]
    for update, weight in zip(updates[1:], weights[1:], strict=True):
        total.add_(update, alpha=weight)
    return total


def ties(updates: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    """Trim, elect signs, mean of those that agree; 0 where none does."""
    kept = [trim(update, density) for update in updates]
    elected = weighted_sum(kept, weights).sign_()
    total, mass = torch.zeros_like(elected), torch.zeros_like(elected)
    for update, weight in zip(kept, weights, strict=True):
        agrees = (update.sign() == elected) & (elected != 0)
        total.add_(update * agrees, alpha=weight)
        mass.add_(agrees, alpha=weight)
    return total.div_(mass.masked_fill_(mass == 0, 1))


def trim(update: Tensor, density: float) -> Tensor:
    """`update` with all but its round(density · entries) largest magnitudes set to 0; equal ones stay together."""
    kept = max(1, round(density * update.numel()))
    magnitude = update.abs()
    # Found by partitioning, which takes time in proportion to the entries; sorting them would not.
    threshold = magnitude.flatten().kthvalue(update.numel() - kept + 1).values
    return update * (magnitude >= threshold)


def dare(updates: Sequence[Tensor], weights: Sequence[float], density: float, seeds: Sequence[int]) -> Tensor:
    """Σ w·(ΔW with each entry dropped with probability 1 − density, the rest divided by density)."""
    kept = []
    for update, seed in zip(updates, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        stays = torch.rand(update.shape, generator=generator) < density
        kept.append(update * stays.to(update.device) / density)
    return weighted_sum(kept, weights)
