"""Every numbered equation of docs/theory.md, on toy policies whose responses are all enumerated, in float64.

A response is a rationale z (three of them) and an answer a (no, yes); a = 1 is right. Left sides come from autograd of
the objective or from sums over all responses or all groups, right sides from the formula.
"""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from memedynamics import objectives

DOC = Path(__file__).parents[1] / "docs/theory.md"
RESPONSES = list(itertools.product(range(3), range(2)))
RIGHT = torch.tensor([float(a) for _, a in RESPONSES], dtype=torch.float64)


class Toy:
    """A softmax policy with a parameter for each choice; `theta` (9,): rationale logits, then two for each z."""

    def __init__(self, seed: int, scale: float = 1.0) -> None:
        noise = torch.Generator().manual_seed(seed)
        self.theta = (scale * torch.randn(9, generator=noise, dtype=torch.float64)).requires_grad_()

    def parts(self, theta: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """log π(z) (3,) and log π(a|z) (3, 2)."""
        theta = self.theta if theta is None else theta
        return theta[:3].log_softmax(0), theta[3:].view(3, 2).log_softmax(1)

    def logp(self) -> Tensor:
        """log π of RESPONSES (6,)."""
        z, a = self.parts()
        return torch.stack([z[i] + a[i, j] for i, j in RESPONSES])

    def p(self) -> Tensor:
        return (self.logp().exp() * RIGHT).sum()

    def grad(self, value: Tensor) -> Tensor:
        return torch.autograd.grad(value, self.theta, retain_graph=True)[0]

    def scores(self) -> Tensor:
        """∇log π of RESPONSES (6, 9)."""
        return torch.stack([self.grad(one) for one in self.logp()])

    def mean(self, values: Tensor) -> Tensor:
        """E over responses of `values` (6, …), π held fixed."""
        return torch.tensordot(self.logp().exp().detach(), values, dims=1)


@pytest.fixture(params=[0, 1, 2])
def toy(request: pytest.FixtureRequest) -> Toy:
    return Toy(request.param)


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def entropy(p: Tensor) -> Tensor:
    return -(p * p.log() + (1 - p) * (1 - p).log())


def given(toy: Toy, right: bool) -> Tensor:
    """π(y | right) or π(y | wrong), fixed."""
    chosen = toy.logp().exp().detach() * (RIGHT if right else 1 - RIGHT)
    return chosen / chosen.sum()


def logit(p: Tensor) -> Tensor:
    return (p / (1 - p)).log()


def test_every_equation_has_a_test() -> None:
    """The document's tags are 1 … n, 6a after 6, and each stands in the docstring of a test here."""
    tags = re.findall(r"\\tag\{(.*?)\}", DOC.read_text())
    plain = [tag for tag in tags if tag.isdigit()]
    assert plain == [str(n + 1) for n in range(len(plain))]
    lettered = [(before, tag) for before, tag in itertools.pairwise(tags) if not tag.isdigit()]
    assert lettered == [("6", "6a")]
    docstrings = [f.__doc__ or "" for name, f in globals().items() if name.startswith("test_")]
    tested = {tag for text in docstrings for tag in re.findall(r"Equation (\w+):", text)}
    assert tested == set(tags)


def test_policy_gradient(toy: Toy) -> None:
    """Equation 1: ∇p = E[(r − b)∇log π], whatever b."""
    for b in (0.0, 0.3, -2.0):
        close(toy.mean((RIGHT - b)[:, None] * toy.scores()), toy.grad(toy.p()))


def test_right_and_wrong_apart(toy: Toy) -> None:
    """Equation 2: E[∇log π | right] = ∇p/p, E[∇log π | wrong] = −∇p/(1−p)."""
    p, slope = toy.p().detach(), toy.grad(toy.p())
    close(given(toy, True) @ toy.scores(), slope / p)
    close(given(toy, False) @ toy.scores(), -slope / (1 - p))


def test_functions_of_p(toy: Toy) -> None:
    """Equation 3: ∇J(p) = J′(p)∇p for each J of the table, J′ as `objectives` has it."""
    p, slope = toy.p(), toy.grad(toy.p())
    value = p.detach().numpy()
    table = [
        (p.log(), objectives.sft(value)),
        (p, objectives.reinforce(value)),
        (2 * torch.arcsin(p.sqrt()), objectives.grpo(value)),
        (0.05 * logit(p), objectives.dpo(value, value, 0.1)),
        (-entropy(p), objectives.em_decision(value)),
    ]
    for objective, weight in table:
        close(toy.grad(objective), float(weight) * slope)


def test_sft_on_the_label(toy: Toy) -> None:
    """Equation 4: ∇log Σ_{y right} π(y) = ∇p/p."""
    likelihood = toy.logp()[RIGHT > 0].logsumexp(0)
    close(toy.grad(likelihood), objectives.sft(toy.p().item()).item() * toy.grad(toy.p()))


def test_sft_on_one_chosen_response(toy: Toy) -> None:
    """Equation 5: y+ ~ π0(·|right), at π = π0: E[∇log π(y+)] = ∇p/p; and not after a step away."""
    start = given(toy, True)
    close(start @ toy.scores(), toy.grad(toy.p()) / toy.p().detach())
    moved = Toy(99)
    assert not torch.allclose(start @ moved.scores(), moved.grad(moved.p()) / moved.p().detach(), rtol=0.05)


def test_rft_is_reinforce(toy: Toy) -> None:
    """Equation 6: the mean over all pairs of samples (K = 2) of ½ Σ r∇log π is ∇p, as is REINFORCE with a baseline."""
    scores, pi = toy.scores(), toy.logp().exp().detach()
    pairs = itertools.product(range(6), repeat=2)
    total = sum(pi[i] * pi[j] * (RIGHT[i] * scores[i] + RIGHT[j] * scores[j]) / 2 for i, j in pairs)
    close(total, objectives.reinforce(toy.p().item()).item() * toy.grad(toy.p()))


@pytest.mark.parametrize("count", (2, 4))
def test_rft_on_paired_prompts(toy: Toy, count: int) -> None:
    """Equation 6a: over all draws of K samples with a right and a wrong one, the mean of (1/K) Σ r∇log π is w∇p.

    By hand, K = 8, p = ½: (1 − 2⁻⁷)/(1 − 2⁻⁷) = 1; p = .1: .9999999/(1 − .43046722) = 1.7558; p = .9:
    (1 − .4782969)/.56953278 = .91602.
    """

    def weight(p: float, k: int) -> float:
        return (1 - p ** (k - 1)) / (1 - p**k - (1 - p) ** k)

    scores, pi, total, kept = toy.scores(), toy.logp().exp().detach(), 0.0, 0.0
    for drawn in map(list, itertools.product(range(6), repeat=count)):
        if 0 < RIGHT[drawn].sum() < count:
            total = total + pi[drawn].prod() * (RIGHT[drawn] @ scores[drawn]) / count
            kept = kept + pi[drawn].prod()
    close(total / kept, weight(toy.p().item(), count) * toy.grad(toy.p()))
    assert [weight(p, 8) for p in (0.1, 0.5, 0.9)] == pytest.approx([1.7558, 1, 0.91602], abs=1e-4)


def test_rft_off_policy(toy: Toy) -> None:
    """Equation 7: E_π0[r∇log π] = −p0∇KL(π0(·|right)‖π), which is 0 at π = π0(·|right) and not ∇p elsewhere."""
    base = Toy(7)
    start, p0 = given(base, True), base.p().detach()
    left = (base.logp().exp().detach() * RIGHT) @ toy.scores()
    divergence = (start[RIGHT > 0] * (start[RIGHT > 0].log() - toy.logp()[RIGHT > 0])).sum()
    close(left, -p0 * toy.grad(divergence))
    assert not torch.allclose(left, toy.grad(toy.p()), rtol=0.05)
    # The policy with π0's rationales given right, and the right answer almost surely: at rest.
    rest = Toy(0)
    z = torch.stack([start[i * 2 + 1] for i in range(3)]).log()
    rest.theta = torch.cat([z, torch.tensor([-20.0, 20.0] * 3, dtype=torch.float64)]).requires_grad_()
    assert ((base.logp().exp().detach() * RIGHT) @ rest.scores()).abs().max() < 1e-12


def by_group(toy: Toy, size: int, scaled: bool) -> dict[int, Tensor]:
    """Σ over all groups of `size` responses of P(group)·(1/G)ΣA∇log π, by the number of right ones in the group."""
    scores, pi, found = toy.scores(), toy.logp().exp().detach(), {}
    for group in itertools.product(range(6), repeat=size):
        index = torch.tensor(group)
        rewards = RIGHT[index]
        advantage = rewards - rewards.mean()
        if scaled and rewards.std() > 0:
            advantage = advantage / rewards.std()  # torch: divisor G − 1
        count = int(rewards.sum())
        found[count] = found.get(count, 0.0) + pi[index].prod() * (advantage @ scores[index]) / size
    return found


@pytest.mark.parametrize("size", [2, 3, 4])
def test_dr_grpo(toy: Toy, size: int) -> None:
    """Equation 8: over all groups the mean is (1 − 1/G)∇p."""
    weight = objectives.dr_grpo(toy.p().item(), size).item()
    close(sum(by_group(toy, size, scaled=False).values()), weight * toy.grad(toy.p()))


@pytest.mark.parametrize("size", [2, 4])
def test_grpo_given_the_count(toy: Toy, size: int) -> None:
    """Equation 9: given c right ones, ĉ(1−ĉ)/s·∇p/(p(1−p)), s the sample standard deviation; 0 where all agree."""
    p, slope = toy.p().item(), toy.grad(toy.p())
    for count, total in by_group(toy, size, scaled=True).items():
        share = count / size
        chance = math.comb(size, count) * p**count * (1 - p) ** (size - count)
        spread = math.sqrt(size / (size - 1) * share * (1 - share))
        weight = share * (1 - share) / spread / (p * (1 - p)) if spread else 0.0
        close(total / chance, weight * slope)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_grpo_of_finite_groups(toy: Toy, size: int) -> None:
    """Equation 10: over all groups the mean is w_G(p)∇p; at G = 2 by hand 2p(1−p)·½·√½/(p(1−p)) = √½."""
    weight = objectives.grpo(toy.p().item(), size).item()
    close(sum(by_group(toy, size, scaled=True).values()), weight * toy.grad(toy.p()))
    if size == 2:
        assert weight == pytest.approx(math.sqrt(0.5))


def test_grpo_numbers() -> None:
    """Equation 10: p = .9 gives 2.18 at G = 8 and 1.70 at G = 5 (limit 3.33), from all 2^G groups of two answers.

    Score of a right answer 1/p, of a wrong one −1/(1−p), per ∇p; TRL's ε = 1e-4 changes neither at three digits.
    """
    p = 0.9
    for size, expected in ((8, 2.18), (5, 1.70)):
        total = {0.0: 0.0, 1e-4: 0.0}
        for group in itertools.product((0, 1), repeat=size):
            r = np.array(group, float)
            chance, score = np.prod(np.where(r > 0, p, 1 - p)), np.where(r > 0, 1 / p, -1 / (1 - p))
            for epsilon in total:
                spread = r.std(ddof=1) + epsilon
                total[epsilon] += chance * ((r - r.mean()) / spread @ score if r.std() else 0.0) / size
        assert objectives.grpo(p, size) == pytest.approx(total[0.0], rel=1e-12)
        assert round(total[0.0], 2) == round(total[1e-4], 2) == expected
    assert objectives.grpo(p).item() == pytest.approx(10 / 3)


def test_grpo_of_large_groups(toy: Toy) -> None:
    """Equation 11: w_G → 1/√(p(1−p)) (G = 1000, to about 1/(8Gp(1−p))), the slope of 2 arcsin √p."""
    p = toy.p()
    assert objectives.grpo(p.item(), 1000) == pytest.approx(objectives.grpo(p.item()), rel=5e-3)
    close(toy.grad(2 * torch.arcsin(p.sqrt())), objectives.grpo(p.item()).item() * toy.grad(p))


@pytest.mark.parametrize("size", [2, 5, 8])
def test_grpo_caps_its_weight(size: int) -> None:
    """Equation 12: at p → 0 and p → 1 the weight is (G−1)/√G; at G = 8 7/√8 = 2.475."""
    for p in (1e-7, 1 - 1e-7):
        assert objectives.grpo(p, size) == pytest.approx((size - 1) / math.sqrt(size), rel=1e-5)


def test_dpo_of_the_decision(toy: Toy) -> None:
    """Equation 13: with two responses, right and wrong, ∇log σ(β(logit p − logit p0)) = w∇p."""
    for p0, beta in ((0.3, 0.1), (0.8, 2.0)):
        p = toy.p()
        objective = torch.nn.functional.logsigmoid(beta * (logit(p) - math.log(p0 / (1 - p0))))
        close(toy.grad(objective), objectives.dpo(p.item(), p0, beta).item() * toy.grad(p))


def test_dpo_of_responses_at_the_start(toy: Toy) -> None:
    """Equation 14: over all pairs at π0, E∇log σ(βm) = β/2·∇p/(p(1−p)); away from π0 no multiple of ∇p."""

    def step(policy: Toy, start: Toy, beta: float) -> Tensor:
        ratio = policy.logp() - start.logp().detach()
        pairs = itertools.product(*(torch.nonzero(r == RIGHT).ravel().tolist() for r in (1, 0)))
        chosen, rejected = given(start, True), given(start, False)
        loss = sum(
            chosen[i] * rejected[j] * torch.nn.functional.logsigmoid(beta * (ratio[i] - ratio[j])) for i, j in pairs
        )
        return policy.grad(loss)

    p = toy.p().item()
    close(step(toy, toy, 0.7), objectives.dpo(p, p, 0.7).item() * toy.grad(toy.p()))
    moved = Toy(50, scale=2.0)
    assert torch.cosine_similarity(step(moved, toy, 0.7), moved.grad(moved.p()), dim=0).abs() < 0.999


def test_em_of_the_decision(toy: Toy) -> None:
    """Equation 15: −∇H(p) = logit p ∇p; by hand, p = .9: ln 9 = 2.197."""
    p = toy.p()
    close(toy.grad(-entropy(p)), objectives.em_decision(p.item()).item() * toy.grad(p))
    assert objectives.em_decision(0.9) == pytest.approx(math.log(9))


def test_em_gated_by_the_label(toy: Toy) -> None:
    """Equation 16: gated by p > ½ the weight is max(0, logit p); gated by a sample it is p logit p."""
    p = toy.p()
    gate = float(p > 0.5)
    close(gate * toy.grad(-entropy(p)), objectives.em_gated(p.item()).item() * toy.grad(p))
    assert objectives.em_gated(0.1) == 0 and 0.1 * objectives.em_decision(0.1) < 0
    sampled = toy.mean(RIGHT[:, None] * toy.grad(-entropy(p)))
    close(sampled, p.detach() * logit(p.detach()) * toy.grad(p))


def test_em_against_grpo() -> None:
    """Equation 17: ⟨−∇H, w∇p⟩ = logit p·w·‖∇p‖², so its sign is that of p − ½."""
    signs = set()
    for seed in range(6):
        toy = Toy(seed)
        p, slope = toy.p(), toy.grad(toy.p())
        grpo = sum(by_group(toy, 3, scaled=True).values())
        inner = toy.grad(-entropy(p)) @ grpo
        weights = objectives.em_decision(p.item()) * objectives.grpo(p.item(), 3)
        close(inner, float(weights) * slope @ slope)
        assert torch.sign(inner) == torch.sign(p - 0.5)
        signs.add(inner.item() > 0)
    assert signs == {True, False}


def test_em_of_the_sequence(toy: Toy) -> None:
    """Equation 18: −∇H(π) = E[(log π − b)∇log π], whatever b."""
    logp = toy.logp()
    whole = -(logp.exp() * logp).sum()
    for b in (0.0, -1.7):
        close(toy.mean((logp.detach() - b)[:, None] * toy.scores()), toy.grad(-whole))


def test_entropy_of_rationale_and_answer(toy: Toy) -> None:
    """Equation 19: H(y) = H(z) + E H(a|z), the second at most ln 2."""
    z, a = toy.parts()
    whole = -(toy.logp().exp() * toy.logp()).sum()
    answer = (z.exp() * -(a.exp() * a).sum(1)).sum()
    close(whole, -(z.exp() * z).sum() + answer)
    assert answer < math.log(2)


def test_em_of_the_tokens(toy: Toy) -> None:
    """Equation 20: ∇H = E[Σ∇H_t] + E[Σ H_t∇log π(y_<t)]; H_1 = H(z) has no prefix, H_2 = H(a|z) has z."""
    z, a = toy.parts()
    first, second = -(z.exp() * z).sum(), -(a.exp() * a).sum(1)
    whole = -(toy.logp().exp() * toy.logp()).sum()
    token_em = toy.grad(first) + sum(z[i].exp().detach() * toy.grad(second[i]) for i in range(3))
    prefixes = sum(z[i].exp().detach() * second[i].detach() * toy.grad(z[i]) for i in range(3))
    close(toy.grad(whole), token_em + prefixes)
    assert prefixes.norm() > 1e-3


def test_em_after_a_given_rationale(toy: Toy) -> None:
    """Equation 21: −E∇H(q_z) = E[logit q_z∇q_z], not logit p∇p."""
    z, a = toy.parts()
    q = a.exp()[:, 1]
    held = z.exp().detach()
    left = toy.grad(-(held * entropy(q)).sum())
    close(left, sum(held[i] * logit(q[i]).detach() * toy.grad(q[i]) for i in range(3)))
    assert not torch.allclose(left, logit(toy.p()).detach() * toy.grad(toy.p()), rtol=0.05)


def test_shared_parameters() -> None:
    """Equation 22: the inner product of two batches is Σ w_x v_x′⟨∇p_x, ∇p_x′⟩; two positive weightings differ.

    They oppose each other where a bias is all that is learnt: p = .1 (yes), .5 (no), SFT .9 − .5, GRPO .3 − .5.
    """
    mix = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    shared = torch.randn(4, generator=torch.Generator().manual_seed(4), dtype=torch.float64, requires_grad=True)
    p = [sum((mix[x] @ shared)[3:].view(3, 2).softmax(1)[:, 1] * (mix[x] @ shared)[:3].softmax(0)) for x in range(2)]
    slopes = [torch.autograd.grad(one, shared, retain_graph=True)[0] for one in p]
    w, v = [[float(f(one.item())) for one in p] for f in (objectives.sft, objectives.grpo)]
    one = torch.autograd.grad(sum(one.log() for one in p), shared, retain_graph=True)[0]
    other = torch.autograd.grad(sum(2 * torch.arcsin(one.sqrt()) for one in p), shared)[0]
    close(one @ other, sum(w[x] * v[y] * slopes[x] @ slopes[y] for x in range(2) for y in range(2)))
    assert torch.cosine_similarity(one, other, dim=0) < 0.999
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    p = [torch.sigmoid(bias - math.log(9)), torch.sigmoid(-bias)]
    assert torch.autograd.grad(sum(x.log() for x in p), bias, retain_graph=True)[0].item() == pytest.approx(0.4)
    assert torch.autograd.grad(sum(2 * x.sqrt().arcsin() for x in p), bias)[0].item() == pytest.approx(-0.2)


def test_length_normalisation(toy: Toy) -> None:
    """Equation 23: E[r/|y| ∇log π] = ∇E[r/|y|], no multiple of ∇p; rationales of 1, 4 and 9 tokens."""
    length = torch.tensor([(2.0, 5.0, 10.0)[z] for z, _ in RESPONSES], dtype=torch.float64)
    left = toy.mean((RIGHT / length)[:, None] * toy.scores())
    close(left, toy.grad((toy.logp().exp() * RIGHT / length).sum()))
    assert torch.cosine_similarity(left, toy.grad(toy.p()), dim=0) < 0.999


def test_clipping(toy: Toy) -> None:
    """Equation 24: the gradient of the clipped surrogate, response by response, off-policy; on-policy A∇log π."""
    old, epsilon = Toy(20).logp().detach(), 0.2
    ratio, scores = (toy.logp() - old).exp(), toy.scores()
    for advantage in (1.5, -0.5):
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - epsilon, 1 + epsilon) * advantage)
        free = ratio <= 1 + epsilon if advantage > 0 else ratio >= 1 - epsilon
        for i in range(6):
            expected = advantage * ratio[i].detach() * scores[i] if free[i] else torch.zeros(9, dtype=torch.float64)
            close(toy.grad(surrogate[i]), expected)
    same = (toy.logp() - toy.logp().detach()).exp()
    close(toy.grad(torch.minimum(same, same.clamp(0.8, 1.2))[0]), scores[0])


def test_kl_term(toy: Toy) -> None:
    """Equation 25: −∇KL(π‖π0) = −E[log π/π0 ∇log π], 0 at π0."""
    base = Toy(30).logp().detach()
    divergence = (toy.logp().exp() * (toy.logp() - base)).sum()
    close(-toy.mean((toy.logp().detach() - base)[:, None] * toy.scores()), toy.grad(-divergence))
    itself = (toy.logp().exp() * (toy.logp() - toy.logp().detach())).sum()
    close(toy.grad(itself), torch.zeros(9, dtype=torch.float64))


def test_reward_of_two_parts(toy: Toy) -> None:
    """Equation 26: E[(R − E R)/sd(R) ∇log π] = Σ a_j∇p_j / sd(R); format is right where z < 2."""
    form = torch.tensor([float(z < 2) for z, _ in RESPONSES], dtype=torch.float64)
    reward = 0.9 * RIGHT + 0.1 * form
    pi = toy.logp().exp()
    mean = (pi * reward).sum().detach()
    spread = (pi * (reward - mean) ** 2).sum().sqrt().detach()
    left = toy.mean(((reward - mean) / spread)[:, None] * toy.scores())
    close(left, (0.9 * toy.grad(toy.p()) + 0.1 * toy.grad((pi * form).sum())) / spread)
    assert torch.cosine_similarity(left, toy.grad(toy.p()), dim=0) < 0.99999


# The numbers in the document's text.
TABLE = {
    "SFT on the label": objectives.sft,
    "SFT on all correct": objectives.reinforce,
    "Dr. GRPO": lambda p: objectives.dr_grpo(p, 8),
    "GRPO, $G=8$": lambda p: objectives.grpo(p, 8),
    "GRPO, $G=5$": lambda p: objectives.grpo(p, 5),
    "GRPO, large": objectives.grpo,
    "DPO on": lambda p: objectives.dpo(p, p, 0.1),
    "entropy minimisation": objectives.em_decision,
}


@pytest.mark.parametrize("method", TABLE)
def test_the_table_s_numbers(method: str) -> None:
    """Columns p = .1, .5, .9 of the table are the weights of `objectives`, to the digits that are written."""
    (line,) = (line for line in DOC.read_text().splitlines() if line.startswith(f"| {method}"))
    written = [cell.strip().replace("−", "-") for cell in line.split("|")[-4:-1]]
    for number, p in zip(written, (0.1, 0.5, 0.9), strict=True):
        digits = len(number.partition(".")[2])
        assert float(number) == pytest.approx(TABLE[method](np.array(p)), abs=0.5 * 10**-digits + 1e-12)


def said(pattern: str) -> list[str]:
    """The numbers that `pattern` finds in the document, whose lines may break anywhere."""
    (found,) = re.finditer(pattern, re.sub(r"\s+", " ", DOC.read_text()))
    return list(found.groups())


def test_the_guard_s_share() -> None:
    """One right answer among G: s = √(G/(G−1)·(G−1)/G²) = 1/√G, the smallest; 1e-4·√64 = .08 %, 1e-4·√101 > .1 %."""
    size, percent = map(float, said(r"up to \$G=(\d+)\$ it takes off less than ([\d.]+) %"))
    rewards = np.eye(int(size))[0]
    taken = 1 - rewards.std(ddof=1) / (rewards.std(ddof=1) + objectives.EPSILON)
    assert percent / 200 < taken < percent / 100
    assert taken == pytest.approx(8e-4, rel=1e-3)


def test_grpo_s_other_numbers() -> None:
    """The population's standard deviation is √((G−1)/G) of the sample's.

    2.1755·√(8/7) = 2.3257, 1.7016·√(5/4) = 1.9025.
    """
    sample = said(r"At \$p=\.9\$ it is ([\d.]+) for \$G=8\$ and ([\d.]+) for \$G=5\$")
    population = said(r"divisor \$G\$, it would be ([\d.]+) and ([\d.]+)\.\)")
    for one, other, size in zip(sample, population, (8, 5), strict=True):
        weight = float(objectives.grpo(0.9, size))
        assert float(one) == round(weight, 2) and float(other) == round(weight * math.sqrt(size / (size - 1)), 2)


def test_the_numbers_of_paired_prompts() -> None:
    """Of 6a at K = 8, as in its own test by hand."""
    numbers = said(r"for \$K=8\$ is ([\d.]+) at \$p=\.1\$, ([\d.]+) at \$p=\.5\$ and ([\d.]+) at \$p=\.9\$")
    for number, p in zip(numbers, (0.1, 0.5, 0.9), strict=True):
        assert float(number) == round((1 - p**7) / (1 - p**8 - (1 - p) ** 8), 2)


def test_the_standard_error_of_a_share() -> None:
    """√(p(1−p)/K) is largest at ½: 1/(2√K); of K = 8 over all 256 outcomes .176777."""
    assert said(r"standard error of up to \$1/\((\d)\\sqrt (\w)\)\$") == ["2", "K"]
    for k in (3, 8):
        shares = [np.mean(drawn) for drawn in itertools.product((0, 1), repeat=k)]
        assert np.std(shares) == pytest.approx(1 / (2 * math.sqrt(k)))
        assert all(math.sqrt(p * (1 - p) / k) < 1 / (2 * math.sqrt(k)) for p in (0.1, 0.4, 0.7))
