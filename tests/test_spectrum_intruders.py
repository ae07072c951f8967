"""The base's singular vectors under an update: by hand, and against full decompositions of W0 + ΔW."""

import math

import numpy as np
import pytest
import torch

from memedynamics import intruders
from memedynamics.intruders import Base
from memedynamics.spectra import Factors, of_matrix

SHAPES = {"square": (90, 90), "tall": (130, 80), "wide": (80, 130)}


def random(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cached(weight: torch.Tensor) -> Base:
    """What `base_svd` keeps: float16 vectors, float32 values."""
    found = of_matrix(weight)
    return Base(found.left.half(), found.values.float())


def test_two_values_that_swap_by_hand():
    """diag(2, 1) + diag(0, 3) = diag(2, 4): the leading vector is now e2, which W0 has too.

    No intruder; the leading direction has turned by π/2; the shift is ‖(4, 2) − (2, 1)‖/‖(2, 1)‖ = 1 ≤ 3/√5.
    """
    weight = torch.diag(torch.tensor([2.0, 1.0]))
    for update in (
        Factors(torch.tensor([[0.0], [3.0]]), torch.tensor([[0.0, 1.0]])),
        torch.diag(torch.tensor([0.0, 3])),
    ):
        moved = intruders.move(cached(weight), weight, update, 1)
        assert np.abs(moved.cosines[:, 0]) == pytest.approx([0, 1], abs=1e-6)
        assert intruders.count_intruders(moved.cosines, 0.5) == 0
        assert intruders.rotation(moved.cosines) == pytest.approx((1, math.pi / 2))
        assert moved.values == pytest.approx([4, 2])
        assert intruders.spectral_shift(cached(weight).values, moved.values) == pytest.approx(1)


def test_an_intruder_by_hand():
    """A large update along (1, 1, 1, 1)/2: |cos| = ½ with each of e1 … e4, an intruder below .6 and not below .4.

    Of the base's leading vector it holds cos² = ¼.
    """
    weight = torch.diag(torch.tensor([4.0, 3, 2, 1])) * 1e-3
    update = Factors(torch.full((4, 1), 0.5), torch.tensor([[1.0, 0, 0, 0]]))
    moved = intruders.move(cached(weight), weight, update, 1)
    assert np.abs(moved.cosines[:, 0]) == pytest.approx([0.5] * 4, abs=5e-3)
    assert [intruders.count_intruders(moved.cosines, epsilon) for epsilon in (0.4, 0.6)] == [0, 1]
    assert intruders.rotation(moved.cosines)[0] == pytest.approx(3 / 4, abs=5e-3)


@pytest.mark.parametrize("size", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("strength", [0.01, 0.3, 1.5])
@pytest.mark.parametrize("low_rank", [True, False])
def test_equal_to_full_decompositions(size: tuple[int, int], strength: float, low_rank: bool):
    """Cosines, singular values and counts of the 10 leading vectors, whose gaps are wide enough to tell them apart."""
    out, into = size
    left, right = (torch.linalg.qr(random(n, min(size), seed=seed))[0] for n, seed in ((out, 1), (into, 2)))
    weight = left * torch.arange(1, min(size) + 1, dtype=torch.float64).rsqrt() @ right.T
    spread = torch.linspace(0.3, 1, 6, dtype=torch.float64) * strength
    update = Factors(torch.linalg.qr(random(out, 6, seed=3))[0] * spread, torch.linalg.qr(random(into, 6, seed=4))[0].T)
    moved = intruders.move(cached(weight), weight, update if low_rank else update.dense(), 10)
    before, after, _ = torch.linalg.svd(weight + update.dense(), full_matrices=False)
    expected = (torch.linalg.svd(weight, full_matrices=False).U.T @ before[:, :10]).numpy()
    np.testing.assert_allclose(np.abs(moved.cosines), np.abs(expected), atol=3e-3)
    np.testing.assert_allclose(moved.values, after.numpy(), atol=2e-3)
    counts = [intruders.count_intruders(expected, epsilon) for epsilon in (0.3, 0.5, 0.7)]
    assert [intruders.count_intruders(moved.cosines, epsilon) for epsilon in (0.3, 0.5, 0.7)] == counts
    assert intruders.rotation(moved.cosines) == pytest.approx(intruders.rotation(expected), abs=5e-3)
    assert counts[1] > 0 or strength < 1


def test_lanczos_is_what_was_compared():
    """The sizes above are beyond those that are decomposed whole; Lanczos and the whole agree."""
    assert min(min(size) for size in SHAPES.values()) > intruders.KRYLOV
    weight, update = random(100, 100), Factors(random(100, 3, seed=1), random(3, 100, seed=2))
    matrix = intruders.perturbed(cached(weight), weight, update)
    expected = torch.linalg.eigh(matrix.dense())[1].flip(1)[:, :8].numpy()
    np.testing.assert_allclose(np.abs(intruders.leading(matrix, 8)), np.abs(expected), atol=1e-6)


@pytest.mark.parametrize("size", SHAPES.values(), ids=SHAPES)
def test_an_update_of_zero_moves_nothing(size: tuple[int, int]):
    """However alike the base's singular values are: float16 vectors take nothing from it."""
    weight = random(*size)
    base = cached(weight)
    moved = intruders.move(base, weight, Factors(torch.zeros(size[0], 2), random(2, size[1])), 10)
    np.testing.assert_allclose(np.abs(moved.cosines[:10]), np.eye(10), atol=1e-6)
    assert intruders.spectral_shift(base.values, moved.values) < 1e-6
    assert intruders.rotation(moved.cosines)[0] == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("size", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("scale", [1e-3, 0.1, 3])
def test_the_spectral_shift_is_at_most_the_relative_norm(size: tuple[int, int], scale: float):
    """Mirsky's bound; it is met where the update is a multiple of W0 itself."""
    weight = random(*size)
    update = Factors(random(size[0], 4, seed=1) * scale, random(4, size[1], seed=2))
    base = cached(weight)
    shift = intruders.spectral_shift(base.values, intruders.move(base, weight, update, 5).values)
    bound = float(torch.linalg.norm(update.dense()) / torch.linalg.norm(weight))
    assert 0 < shift <= bound * 1.001
    tight = intruders.spectral_shift(base.values, intruders.move(base, weight, weight * scale, 5).values)
    assert tight == pytest.approx(scale, rel=1e-3)
