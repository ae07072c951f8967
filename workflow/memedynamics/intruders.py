"""What an update does to the base's singular values and vectors, by way of the base's own decomposition.

1. With W0 = U0 S0 V0ᵀ cached, U0ᵀ W Wᵀ U0 of W = W0 + BA is diag(S0²) plus a symmetric matrix of rank 2r: applying it
   costs O(n r), so its leading eigenvectors come in milliseconds (Lanczos). They are the left singular vectors of W
   written in the base's: their entries ARE the cosines with W0's vectors, and an update of 0 leaves them exactly.
   Where W0 has fewer left vectors than rows (tall), B's part outside their span adds r coordinates.
2. Intruder dimensions (Shuttleworth et al. 2410.21228): of the `top` leading left vectors of W those whose largest
   |cosine| with any of W0's is below epsilon.
3. Rotation of the principal subspace: 1 − ‖U0ₖᵀUₖ‖²_F/k of the leading k = `top` vectors of each, 0 none; and the
   largest principal angle, which the swap of vectors k and k + 1 alone takes to π/2.
4. Normalised spectral shift ‖σ(W) − σ(W0)‖ / ‖σ(W0)‖ over all singular values: at most ‖ΔW‖_F/‖W0‖_F (Mirsky 1960).
   It needs every singular value of W, O(n³), the dearest number here.
5. A full update has no low rank: the smaller Gram matrix of W is formed, and its leading vectors turned into U0's.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from memedynamics.spectra import Factors, Update

TOLERANCE = 1e-9  # of the largest eigenvalue
KRYLOV = 60  # vectors kept by Lanczos, at least


class Base(NamedTuple):
    """The base's left singular vectors `left` (out, k), any float type, and singular `values` (k,), falling."""

    left: torch.Tensor
    values: torch.Tensor


class Moved(NamedTuple):
    """W's leading left vectors in W0's: `cosines` (k, top); and all singular `values` (k,) of W, falling, if asked."""

    cosines: np.ndarray
    values: np.ndarray | None


class Perturbed(NamedTuple):
    """The symmetric matrix diag(`diagonal`) + S Bᵀ + B Sᵀ with S = `one`, B = `other` (N, r)."""

    diagonal: torch.Tensor
    one: torch.Tensor
    other: torch.Tensor

    def dense(self) -> torch.Tensor:
        """The matrix (N, N)."""
        product = self.one @ self.other.T
        return product + product.T + torch.diag(self.diagonal)


def move(base: Base, weight: torch.Tensor, update: Update, top: int, all_values: bool = True) -> Moved:
    """What adding `update` to `weight` (out, in), whose decomposition is `base`, does to its left singular vectors."""
    top = min(top, len(base.values))
    if isinstance(update, Factors):
        matrix = perturbed(base, weight, update)
        vectors = leading(matrix, top)[: len(base.values)]
        squares = torch.linalg.eigvalsh(matrix.dense()) if all_values else None
    else:
        vectors, squares = _of_full(base, weight, update, top)
    if not all_values:
        return Moved(vectors, None)
    values = squares.clamp(min=0).sqrt().flip(0)[: len(base.values)]
    return Moved(vectors, values.cpu().numpy())


def perturbed(base: Base, weight: torch.Tensor, update: Factors) -> Perturbed:
    """W Wᵀ in the coordinates of the base's left vectors, float64 (point 1)."""
    precise = torch.float64 if weight.device.type == "cuda" else torch.float32
    left, weight = base.left.to(precise), weight.to(precise)
    right = update.right.to(precise)
    moving, acting = left.T @ update.left.to(precise), left.T @ (weight @ right.T)
    diagonal = base.values.double() ** 2
    if left.shape[0] > left.shape[1]:
        outside = torch.linalg.qr(update.left.to(precise) - left @ moving)[1]
        moving = torch.cat([moving, outside])
        acting = torch.cat([acting, acting.new_zeros(len(outside), acting.shape[1])])
        diagonal = torch.cat([diagonal, diagonal.new_zeros(len(outside))])
    moving, acting, right = moving.double(), acting.double(), right.double()
    return Perturbed(diagonal, acting + moving @ (right @ right.T) / 2, moving)


def leading(matrix: Perturbed, top: int) -> np.ndarray:
    """The eigenvectors (N, top) of the `top` largest eigenvalues, the largest first."""
    size = len(matrix.diagonal)
    if size <= max(KRYLOV, 2 * top):
        return torch.linalg.eigh(matrix.dense())[1].flip(1)[:, :top].cpu().numpy()
    diagonal, one, other = (part.cpu().numpy() for part in matrix)

    def apply(x: np.ndarray) -> np.ndarray:
        x = x.ravel()
        return diagonal * x + one @ (other.T @ x) + other @ (one.T @ x)

    return _lanczos(apply, size, top)


def _lanczos(apply: object, size: int, top: int) -> np.ndarray:
    operator = LinearOperator((size, size), matvec=apply, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(size)
    kept = min(size - 1, max(KRYLOV, 4 * top))
    values, vectors = eigsh(operator, k=top, which="LA", v0=start, ncv=kept, tol=TOLERANCE)
    return vectors[:, np.argsort(-values)]


def _of_full(base: Base, weight: torch.Tensor, update: torch.Tensor, top: int) -> tuple[np.ndarray, torch.Tensor]:
    """Cosines (k, top) and squared singular values, rising, for an update without factors (point 5)."""
    moved = weight.double() + update.double()
    wide = moved.shape[0] <= moved.shape[1]
    squares, vectors = torch.linalg.eigh(moved @ moved.T if wide else moved.T @ moved)
    vectors = vectors.flip(1)[:, :top]
    if not wide:
        vectors = torch.nn.functional.normalize(moved @ vectors, dim=0)
    return (base.left.double().T @ vectors).cpu().numpy(), squares


def count_intruders(cosines: np.ndarray, epsilon: float) -> int:
    """How many of the vectors (columns) have no |cosine| of `epsilon` or more with any of the base's (rows)."""
    return int((np.abs(cosines).max(axis=0) < epsilon).sum())


def rotation(cosines: np.ndarray) -> tuple[float, float]:
    """Share of the leading subspace turned out of the base's, and the largest principal angle in rad (point 3)."""
    block = np.clip(np.linalg.svd(cosines[: cosines.shape[1]], compute_uv=False), 0, 1)
    return float(1 - (block**2).mean()), float(np.arccos(block.min()))


def spectral_shift(base: torch.Tensor, moved: np.ndarray) -> float:
    """Normalised spectral shift of singular values `moved` against `base` (k,) (point 4)."""
    before = base.double().cpu().numpy()
    return float(np.linalg.norm(moved - before) / np.linalg.norm(before))
