"""The objectives' coefficients on samples: by hand, against TRL's advantages, against autograd."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from memedynamics import objectives
from memedynamics.objectives import Drawn, advantages, coefficients
from memedynamics.rollouts import group_advantages

DRAWN = Drawn(
    correct=np.array([1.0, 0.0, 0.0, 1.0]),
    reward=np.array([1.0, 0.1, 0.0, 1.0]),
    logp=np.array([-1.0, -2.0, -3.0, -6.0]),
    p_yes=np.array([0.8, 0.4, 0.1, 0.5]),
    label=1,
    pair=(0, 1),
    log_ratio=2.0,
)


def test_by_hand() -> None:
    """Four samples, two right. Mean ½, sample standard deviation √(4·¼/3) = .57735, so A = ±.5/.57745 = ±.86588, /4.

    REINFORCE with baseline .3: (.7, −.3, −.3, .7)/4. Sequence-EM, sample 0: −1 − (−2−3−6)/3 = 8/3, /4 = 2/3.
    DPO: βσ(−β·2) at β = .5: .5/(1 + e) = .134471. SFT on the label, yes: (1 − q)/4.
    Decision-EM, sample 0: ln 4·.8·.2/4 = .055452; sample 3, q = ½: 0.
    """
    found = coefficients(DRAWN, baseline=0.3, beta=0.5, group=4)
    assert set(found) == set(objectives.OBJECTIVES)
    expected = {
        "sft_chosen": [1, 0, 0, 0],
        "rft": [0.25, 0, 0, 0.25],
        "reinforce": [0.175, -0.075, -0.075, 0.175],
        "dr_grpo": [0.125, -0.125, -0.125, 0.125],
        "grpo": [0.216469, -0.216469, -0.216469, 0.216469],
        "dpo": [0.134471, -0.134471, 0, 0],
        "em_sequence": [2 / 3, 1 / 3, 0, -1],
        "sft_label": [0.05, 0.15, 0.225, 0.125],
        "em_token": [-0.25] * 4,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6, err_msg=name)
    assert found["em_decision"][0] == pytest.approx(0.055452, abs=1e-6) and found["em_decision"][3] == 0


def test_of_the_decision_against_autograd() -> None:
    """sft_label and em_decision are the slopes of mean log q(label) and −mean H(q) by the log-odds of yes."""
    for label in (0, 1):
        drawn = DRAWN._replace(label=label)
        z = torch.tensor(np.log(drawn.p_yes / (1 - drawn.p_yes)), requires_grad=True)
        q = torch.sigmoid(z)
        likelihood = (q if label else 1 - q).log().mean()
        negative = (q * q.log() + (1 - q) * (1 - q).log()).mean()
        found = coefficients(drawn, 0.3, 0.5, 4)
        np.testing.assert_allclose(found["sft_label"], torch.autograd.grad(likelihood, z, retain_graph=True)[0])
        np.testing.assert_allclose(found["em_decision"], torch.autograd.grad(negative, z)[0], atol=1e-12)


def test_grpo_of_the_decision_is_its_expectation_over_groups() -> None:
    """K = 1, q = .8, G = 2: groups RR, RW, WR, WW; A∇log q of RW is √½(∇q/q + ∇q/(1−q))/2, ∇q = q(1−q): by hand
    2·.16·√½/2·1 = .113137 towards the label, whichever label that is.
    """
    drawn = Drawn(*(np.array([x]) for x in (1.0, 1.0, -1.0, 0.8)), label=1, pair=None, log_ratio=0.0)
    assert coefficients(drawn, 0.0, 0.1, 2)["grpo_decision"] == pytest.approx(0.113137, abs=1e-6)
    other = drawn._replace(p_yes=np.array([0.2]), label=0)
    assert coefficients(other, 0.0, 0.1, 2)["grpo_decision"] == pytest.approx(-0.113137, abs=1e-6)


@pytest.mark.parametrize(("scaled", "scale"), [(True, "group"), (False, "none")])
def test_advantages_are_the_trainer_s(scaled: bool, scale: str) -> None:
    """Eight rewards in groups of four, as the rollouts' advantages, which are TRL's."""
    rewards = np.random.default_rng(0).random(8)
    theirs = group_advantages(torch.tensor(rewards)[:, None], [1.0], 4, scale=scale)
    np.testing.assert_allclose(advantages(rewards, 4, scaled), theirs.numpy(), rtol=1e-6)


def test_groups_that_do_not_fill_up() -> None:
    """K = 5, G = 2: two groups, the fifth sample counts nothing and the others 5/4; G above K is one group of K."""
    rewards = np.array([1.0, 0, 1, 0, 1])
    np.testing.assert_allclose(advantages(rewards, 2, scaled=False), np.array([0.5, -0.5, 0.5, -0.5, 0]) * 5 / 4)
    np.testing.assert_allclose(advantages(rewards, 64), advantages(rewards, 5))


def test_nothing_to_learn() -> None:
    """All right: no advantage; no pair: neither SFT on the chosen nor DPO; one sample: no baseline, no group."""
    drawn = DRAWN._replace(correct=np.ones(4), pair=None)
    found = coefficients(drawn, 0.3, 0.5, 4)
    for name in ("sft_chosen", "dr_grpo", "grpo", "dpo"):
        assert not found[name].any()
    one = Drawn(*(np.array([x]) for x in (1.0, 1.0, -1.0, 1.0)), label=1, pair=None, log_ratio=0.0)
    assert all(np.isfinite(values).all() for values in coefficients(one, 0.3, 0.5, 4).values())


def test_mean_coefficients_are_the_theory_s_weights() -> None:
    """Over all 2^8 answers of p = .7 with scores 1/p and −1/(1−p), GRPO, Dr. GRPO and `rft` weigh ∇p as w(p) says."""
    p, total = 0.7, dict.fromkeys(("grpo", "dr_grpo", "rft", "reinforce"), 0.0)
    for bits in range(2**8):
        correct = np.array([(bits >> i) & 1 for i in range(8)], float)
        score = np.where(correct > 0, 1 / p, -1 / (1 - p))
        drawn = Drawn(correct, correct, np.zeros(8), np.full(8, p), 1, None, 0.0)
        found = coefficients(drawn, 0.4, 0.1, 8)
        for name in total:
            total[name] += np.prod(np.where(correct > 0, p, 1 - p)) * found[name] @ score
    assert total["grpo"] == pytest.approx(objectives.grpo(p, 8), rel=1e-3)
    assert total["dr_grpo"] == pytest.approx(objectives.dr_grpo(p, 8))
    assert total["rft"] == pytest.approx(1) and total["reinforce"] == pytest.approx(1)


def test_needs_no_torch() -> None:
    """The objectives serve reductions too."""
    code = "import sys; import memedynamics.objectives; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1] / "workflow")
