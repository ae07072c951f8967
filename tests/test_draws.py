"""Draws from a model pass as its draws; those of another model, temperature or truncation are found out."""

import math

import numpy as np
import pytest
import torch

from memedynamics.draws import LIMIT, SLOPES, Draws
from memedynamics.errors import InputError

VOCABULARY, NEVER = 200, 7


def logits(count, seed=0):
    """Peaked like a language model's: most tokens nearly sure, some open, a long tail."""
    made = torch.Generator().manual_seed(seed)
    scale = 0.5 + 5 * torch.rand(count, 1, generator=made)
    return scale * torch.randn(count, VOCABULARY, generator=made)


def drawn(given, temperature=1.0, seed=1, top_k=VOCABULARY, top_p=1.0):
    """Tokens (P,) as an engine with these settings draws them, never token NEVER."""
    given = given.clone()
    given[:, NEVER] = -torch.inf
    p = (given / temperature).softmax(-1)
    kept, order = p.sort(-1, descending=True)
    outside = kept.cumsum(-1) - kept >= top_p
    outside[:, top_k:] = True
    kept = kept.masked_fill(outside, 0.0)
    found = torch.multinomial(kept, 1, generator=torch.Generator().manual_seed(seed))
    return order.gather(1, found)[:, 0]


def heard(given, tokens, temperature=1.0, dtype="float32"):
    draws = Draws(dtype, temperature, NEVER, "the engine")
    for part in torch.arange(len(tokens)).split(1000):
        draws.add(draws.measure(given[part], tokens[part]))
    return draws


def test_one_token_by_hand():
    """p = (1/2, 1/4, 1/4), token 1 drawn: x = ln 4, E x = 1.5 ln 2; for λ, λ ln 4 − ln Σ p^(1 − λ)."""
    given = torch.tensor([0.5, 0.25, 0.25, 0.9]).log()[None]
    count, excess, *evidence = Draws("float32", 1.0, 3, "").measure(given, torch.tensor([1])).tolist()
    assert count == 1 and excess == pytest.approx(0.5 * math.log(2))
    for slope, found in zip(SLOPES, evidence, strict=True):
        p = np.array([0.5, 0.25, 0.25])
        assert found == pytest.approx(slope * math.log(4) - math.log((p ** (1 - slope)).sum()), abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.3])
def test_draws_pass(temperature):
    """20,000 tokens: nothing comes near the limit."""
    given = logits(20_000)
    draws = heard(given, drawn(given, temperature), temperature)
    assert max(draws.heard[2:]) < LIMIT / 2 and abs(draws.heard[1] / draws.heard[0]) < 0.05


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": 1.3}, "less likely"),
        ({"temperature": 0.8}, "more likely"),
        ({"top_k": 20}, "more likely"),
        ({"top_p": 0.9}, "more likely"),
    ],
)
def test_other_draws_are_refused(settings, said):
    """Within 5,000 tokens, about 50 responses."""
    given = logits(5_000)
    with pytest.raises(InputError, match=f"the engine: its responses are not draws .* {said} than draws"):
        heard(given, drawn(given, **settings))


def test_another_model_is_refused():
    """Logits off by a normal deviate of 1, in 20,000 tokens."""
    given = logits(20_000)
    other = given + torch.randn(given.shape, generator=torch.Generator().manual_seed(3))
    with pytest.raises(InputError, match="less likely"):
        heard(given, drawn(other))


def test_rounding_is_no_other_model():
    """A model served in bfloat16, logits rounded to 8 bits, passes for one that is scored in it."""
    given = logits(20_000)
    heard(given, drawn(given.bfloat16().float()), dtype="bfloat16")


def test_texts_in_other_pieces_are_refused_once_they_are_many():
    draws = Draws("float32", 1.0, NEVER, "the engine")
    draws.read(40, 20)
    draws.read(400, 23)
    with pytest.raises(InputError, match="the engine: 48 of 450 texts"):
        draws.read(10, 5)


def test_log_probabilities_of_another_model_are_refused():
    """0.03 nat a token: what half precision leaves open, single precision does not."""
    own = torch.full((100,), -2.0, dtype=torch.float64)
    Draws("bfloat16", 1.0, NEVER, "the engine").compare(own, own + 0.03)
    with pytest.raises(InputError, match="0.03 nat a token .* float32 explains no more than 0.0001"):
        Draws("float32", 1.0, NEVER, "the engine").compare(own, own + 0.03)
