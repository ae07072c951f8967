"""Singular values and vectors of weight updates, and what is read off the values.

1. A low-rank update ΔW = BA is never formed: QR of B and of Aᵀ leave an r × r core, whose SVD is that of ΔW.
2. A full update goes through the eigenvalues of its smaller Gram matrix, in float64, whose root resolves 1e-7
   of the largest value. What lies below 1e-6 of it counts as 0; so it does in 1, as weights are float32 at best.
3. With p_i = σ_i/Σσ and q_i = σ_i²/Σσ²: stable rank 1/q_1 (Rudelson & Vershynin 2007), effective rank exp(−Σ p log p)
   (Roy & Vetterli 2007), participation ratio 1/Σq², k90 the fewest q that reach 0.9. All lie between 1 and the rank,
   which for a LoRA is at most r by construction; none changes with the update's size. Of ΔW = 0 they are undefined.
"""

from typing import NamedTuple

import torch

RESOLUTION = 1e-6  # of the largest singular value: what is below is rounding
ENERGY = 0.9


class Factors(NamedTuple):
    """A low-rank update `left` (out, r) @ `right` (r, in), scaling included."""

    left: torch.Tensor
    right: torch.Tensor

    def dense(self, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """The update (out, in) itself."""
        return self.left.to(dtype) @ self.right.to(dtype)


Update = Factors | torch.Tensor


class Svd(NamedTuple):
    """`left` (out, k), `values` (k,) falling, `right` (in, k), float64; vectors of values that are 0 are left out."""

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor


def svd(update: Update) -> Svd:
    """The singular value decomposition of an update, from its factors where it has them."""
    return _of_factors(update) if isinstance(update, Factors) else of_matrix(update)


def _of_factors(update: Factors) -> Svd:
    left, core_left = torch.linalg.qr(update.left.double())
    right, core_right = torch.linalg.qr(update.right.double().T)
    u, values, vt = torch.linalg.svd(core_left @ core_right.T)
    return _nonzero(left @ u[:, : len(values)], values, right @ vt[: len(values)].T)


def of_matrix(matrix: torch.Tensor) -> Svd:
    """The singular value decomposition of a whole matrix (out, in), through its smaller Gram matrix."""
    if matrix.shape[0] > matrix.shape[1]:
        left, values, right = of_matrix(matrix.T)
        return Svd(right, values, left)
    matrix = matrix.double()
    squares, left = torch.linalg.eigh(matrix @ matrix.T)
    values, left = squares.flip(0).clamp(min=0).sqrt(), left.flip(1)
    values = torch.where(values > RESOLUTION * values[0], values, 0)
    return _nonzero(left, values, matrix.T @ left / values.clamp(min=torch.finfo(torch.float64).tiny))


def _nonzero(left: torch.Tensor, values: torch.Tensor, right: torch.Tensor) -> Svd:
    rank = int((values > RESOLUTION * values[0]).sum()) if values[0] > 0 else 0
    return Svd(left[:, :rank], values[:rank], right[:, :rank])


def shape(values: torch.Tensor) -> dict[str, float | None]:
    """How many directions singular `values` (k,), falling, spread over (point 3); None where there are none."""
    names = ("stable_rank", "effective_rank", "participation_ratio", "k90")
    if not len(values):
        return dict.fromkeys(names)
    values = values.double()
    share, energy = values / values.sum(), values**2 / (values**2).sum()
    reached = (energy.cumsum(0) < ENERGY - 1e-12).sum() + 1
    found = (1 / energy[0], (-torch.xlogy(share, share).sum()).exp(), 1 / (energy**2).sum(), reached)
    return dict(zip(names, map(float, found), strict=True))
