"""How much two subspaces share: ‖U₁ᵀU₂‖²_F / min(k₁, k₂) of orthonormal bases, between 0 and 1.

Two unrelated subspaces of n dimensions share k₁k₂/n / min(k₁, k₂) = max(k₁, k₂)/n on average (Hu et al. 2106.09685,
§7.2, compare with that). It is no null for RIGHT subspaces: those of adapters that start from the same A stay close to
it whatever was learned, and random B over the same A is what they are compared with.
"""

import numpy as np


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Shared part of the spans of orthonormal columns `first` (n, k₁) and `second` (n, k₂); NaN of an empty one."""
    smaller = min(first.shape[1], second.shape[1])
    if not smaller:
        return float("nan")
    product = first.astype(np.float32).T @ second.astype(np.float32)
    return min(1.0, float((product.astype(np.float64) ** 2).sum() / smaller))  # float16 rounds beyond 1


def expected_overlap(first: np.ndarray, second: np.ndarray) -> float:
    """What `overlap` is on average when one of the two points anywhere: max(k₁, k₂)/n."""
    return max(first.shape[1], second.shape[1]) / first.shape[0]


def drift(start: np.ndarray, rows: np.ndarray) -> float:
    """How far the row space of `rows` (r, n) has left that of `start` (r, n): 0 not at all, 1 orthogonal."""
    bases = [np.linalg.qr(matrix.astype(np.float64).T)[0] for matrix in (start, rows)]
    return 1 - float(((bases[0].T @ bases[1]) ** 2).sum()) / min(len(start), len(rows))
