"""Per-sample gradients of linear layers and of LoRA's factors, against autograd one sample at a time."""

import pytest
import torch
from torch import nn

import tiny_models
from memedynamics import adapters, vlm
from memedynamics.config import Adapter
from memedynamics.per_sample import factors, fresh_adapter, recording, weight_gradients

WORDS = torch.arange(20, 44).reshape(3, 8)


@pytest.fixture()
def policy():
    """A tiny model with a fresh adapter."""
    model = vlm.load_model(tiny_models.folder("qwen2_5_vl"))
    return fresh_adapter(model, Adapter(r=4), seed=3)


def losses(model, words):
    """One number a sample, through the text decoder alone."""
    embeddings = vlm.bare(model).get_input_embeddings()(words).detach().requires_grad_()
    hidden = vlm.bare(model).get_decoder()(inputs_embeds=embeddings).last_hidden_state
    return vlm.project(model, hidden[:, -1]).log_softmax(-1)[:, 7], embeddings


def batched(model, which):
    found = {}
    with torch.enable_grad(), recording(factors(model, which)) as recorder:
        values, embeddings = losses(model, WORDS)
        recorder.consume = found.__setitem__
        torch.autograd.grad(values.sum(), embeddings)
    return found


def one_by_one(model, which):
    layers = factors(model, which)
    weights = [layer.weight.requires_grad_() for layer in layers.values()]
    with torch.enable_grad():
        each = [torch.autograd.grad(losses(model, WORDS[n : n + 1])[0].sum(), weights) for n in range(len(WORDS))]
    return {name: torch.stack(some) for name, some in zip(layers, zip(*each, strict=True), strict=True)}


def test_a_linear_layer_by_hand():
    """One sample of two tokens, y = Wx: x = (1, 2), (0, 1), ∂/∂y = (3,), (4,): 3·(1, 2) + 4·(0, 1) = (3, 10)."""
    given, gradient = torch.tensor([[[1.0, 2.0], [0.0, 1.0]]]), torch.tensor([[[3.0], [4.0]]])
    assert weight_gradients(given, gradient).tolist() == [[[3.0, 10.0]]]


@pytest.mark.parametrize("which", ["A", "B"])
def test_a_batch_equals_autograd_one_by_one(policy, which):
    for layer in factors(policy, "B").values():
        nn.init.normal_(layer.weight, std=0.1)
    found, expected = batched(policy, which), one_by_one(policy, which)
    assert found.keys() == expected.keys() and len(found) == 14  # 2 layers of 7 linear ones
    for name, gradients in expected.items():
        assert gradients.abs().max() > 0
        torch.testing.assert_close(found[name], gradients, rtol=1e-3, atol=1e-5 * gradients.abs().max().item())


def test_a_fresh_adapter_is_the_same_function_and_only_b_has_a_gradient(policy):
    bare = vlm.load_model(tiny_models.folder("qwen2_5_vl"))
    torch.testing.assert_close(losses(policy, WORDS)[0], losses(bare, WORDS)[0])
    assert all(gradients.abs().max() > 0 for gradients in batched(policy, "B").values())
    assert all(gradients.abs().max() == 0 for gradients in batched(policy, "A").values())


def test_a_fresh_adapter_comes_from_its_seed_alone(policy):
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    same, other = (
        fresh_adapter(vlm.load_model(tiny_models.folder("qwen2_5_vl")), Adapter(r=4), seed) for seed in (3, 4)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [next(iter(factors(model, "A").values())).weight for model in (policy, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_nothing_is_recorded_before_consume_is_set_or_after_the_context(policy):
    found = []
    with torch.enable_grad(), recording(factors(policy)) as recorder:
        values, embeddings = losses(policy, WORDS)
        torch.autograd.grad(values.sum(), embeddings, retain_graph=True)
        recorder.consume = lambda name, _: found.append(name)
        torch.autograd.grad(values.sum(), embeddings)
    assert sorted(found) == sorted(factors(policy))
    values, embeddings = losses(policy, WORDS)
    torch.autograd.grad(values.sum(), embeddings)
    assert len(found) == len(factors(policy))


def test_a_model_without_an_adapter_that_is_on_has_no_factors(policy):
    assert factors(vlm.load_model(tiny_models.folder("qwen2_5_vl"))) == {}
    adapters.activate(policy, None)
    assert factors(policy) == {}
