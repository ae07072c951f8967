"""Divergences between two next-token distributions: known answers, invariants, independent implementations."""

import math

import pytest
import torch
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

from memedynamics.divergences import Divergences, compare, distribution


def blocks(rows: int = 40, vocabulary: int = 500, shift: float = 0.5) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(rows, vocabulary, generator=generator) * 3
    policy = reference + shift * torch.randn(rows, vocabulary, generator=generator)
    return policy, reference, torch.randint(vocabulary, (rows,), generator=generator)


def by_definition(policy: torch.Tensor, reference: torch.Tensor, targets: torch.Tensor) -> Divergences:
    """The definitions, in float64, one line each."""
    logp, logq = policy.double().log_softmax(-1), reference.double().log_softmax(-1)
    p, q, at = logp.exp(), logq.exp(), targets[:, None]
    return Divergences(
        logp.gather(-1, at)[:, 0],
        logq.gather(-1, at)[:, 0],
        (q * (logq - logp)).sum(-1),
        (p * (logp - logq)).sum(-1),
        -(p * logp).sum(-1),
        torch.minimum(p, q).sum(-1),
        (policy > policy.gather(-1, at)).sum(-1),
    )


def test_softmax_of_four_logits():
    """exp of each: 66.6863, 4.4817, 0.1353, 0.0302; over their sum 71.3336: .93485 .06283 .00190 .00042."""
    p = distribution(torch.tensor([[4.2, 1.5, -2.0, -3.5]])).p[0].tolist()
    assert [f"{v:.5f}" for v in p] == ["0.93485", "0.06283", "0.00190", "0.00042"]
    assert [round(p[0], 3), round(p[1], 3), round(p[2], 3), round(p[3], 4)] == [0.935, 0.063, 0.002, 0.0004]


def test_two_coins():
    """π = (1/2, 1/2), π0 = (1/4, 3/4), target 1.

    KL(π0‖π) = 1/4 ln(1/2) + 3/4 ln(3/2) = -0.173287 + 0.304099 = 0.130812
    KL(π‖π0) = 1/2 ln 2 + 1/2 ln(2/3) = 0.346574 - 0.202733 = 0.143841
    entropy of π = ln 2; acceptance = 1/4 + 1/2 = 3/4; neither token is preferred, so the rank is 0.
    """
    policy, reference = torch.zeros(1, 2), torch.tensor([[0.25, 0.75]]).log()
    found = compare(policy, distribution(reference), torch.tensor([1]))
    assert found.kl_forward.item() == pytest.approx(0.130812, abs=1e-6)
    assert found.kl_reverse.item() == pytest.approx(0.143841, abs=1e-6)
    assert found.entropy.item() == pytest.approx(math.log(2), abs=1e-6)
    assert found.acceptance.item() == pytest.approx(0.75, abs=1e-6)
    assert found.logp.item() == pytest.approx(-math.log(2), abs=1e-6)
    assert found.ref_logp.item() == pytest.approx(math.log(0.75), abs=1e-6)
    assert found.rank.item() == 0


@pytest.mark.parametrize("shift", [1e-3, 0.5, 5.0])
def test_equals_the_definitions(shift: float):
    policy, reference, targets = blocks(shift=shift)
    found, expected = compare(policy, distribution(reference), targets), by_definition(policy, reference, targets)
    for name in Divergences._fields:
        # Relative 1e-5, and an absolute floor of one part in 10^6 that tiny divergences stay well above.
        value, known = getattr(found, name).double(), getattr(expected, name).double()
        torch.testing.assert_close(value, known, rtol=1e-5, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_small_divergences_keep_their_digits():
    """Logits 1e-3 apart: KL is about 5e-7 nat, where the plain float32 sum has lost the sign."""
    policy, reference, targets = blocks(rows=200, vocabulary=5000, shift=1e-3)
    found, expected = compare(policy, distribution(reference), targets), by_definition(policy, reference, targets)
    assert (expected.kl_forward < 2e-6).all()
    torch.testing.assert_close(found.kl_forward.double(), expected.kl_forward, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.kl_reverse.double(), expected.kl_reverse, rtol=0, atol=1e-7)


def test_a_distribution_with_itself():
    policy, _, targets = blocks()
    found = compare(policy, distribution(policy.clone()), targets)
    assert (found.kl_forward == 0).all() and (found.kl_reverse == 0).all()
    assert (found.acceptance == 1).all() and torch.equal(found.logp, found.ref_logp)


def test_invariants():
    policy, reference, targets = blocks(shift=2.0)
    found, back = (
        compare(policy, distribution(reference), targets),
        compare(reference, distribution(policy), targets),
    )
    assert (found.kl_forward >= 0).all() and (found.kl_reverse >= 0).all()
    torch.testing.assert_close(found.kl_forward, back.kl_reverse)
    torch.testing.assert_close(found.acceptance, back.acceptance)
    variation = (policy.softmax(-1) - reference.softmax(-1)).abs().sum(-1) / 2
    torch.testing.assert_close(found.acceptance, 1 - variation)
    # Pinsker: TV ≤ √(KL/2).
    assert (variation <= (found.kl_reverse / 2).sqrt() + 1e-6).all()


def test_uniform_entropy_is_log_v():
    found = compare(torch.zeros(3, 1000), distribution(torch.zeros(3, 1000)), torch.tensor([0, 1, 2]))
    torch.testing.assert_close(found.entropy, torch.full((3,), math.log(1000)))


def test_logp_and_entropy_equal_trls():
    policy, reference, targets = blocks()
    found = compare(policy, distribution(reference), targets)
    torch.testing.assert_close(found.logp, selective_log_softmax(policy, targets))
    torch.testing.assert_close(found.entropy, entropy_from_logits(policy))


def test_extreme_logits_stay_finite():
    policy, reference = torch.tensor([[0.0, 300.0, -300.0]]), torch.tensor([[300.0, 0.0, -300.0]])
    found = compare(policy, distribution(reference), torch.tensor([0]))
    assert found.kl_forward.item() == pytest.approx(300) and found.kl_reverse.item() == pytest.approx(300)
    assert found.acceptance.item() == pytest.approx(0, abs=1e-6) and found.rank.item() == 1


def test_inputs_are_left_alone():
    policy, reference, targets = blocks()
    before, known = policy.clone(), distribution(reference)
    held = (known.logp.clone(), known.p.clone())
    compare(policy, known, targets)
    assert torch.equal(policy, before) and torch.equal(known.logp, held[0]) and torch.equal(known.p, held[1])
