"""Weight updates and their singular values: by hand, against full decompositions, and against PEFT's own layers."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoHaConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

import tiny_models
from memedynamics import deltas, module_spectra, subspaces, vlm, weights
from memedynamics.adapters import peft_config
from memedynamics.config import Adapter
from memedynamics.errors import InputError
from memedynamics.spectra import Factors, shape, svd

FAMILY = "qwen2_5_vl"


def random(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_rank_one_update_by_hand():
    """(3, 4)ᵀ (1, 2, 2): lengths 5 and 3, so σ = 15, u = (.6, .8), v = (1, 2, 2)/3."""
    left, right = torch.tensor([[3.0], [4.0]]), torch.tensor([[1.0, 2.0, 2.0]])
    for update in (Factors(left, right), left @ right):
        found = svd(update)
        assert found.values.tolist() == pytest.approx([15])
        assert found.left[:, 0].abs().tolist() == pytest.approx([0.6, 0.8])
        assert found.right[:, 0].abs().tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])


@pytest.mark.parametrize(("out", "into"), [(40, 24), (24, 40), (30, 30)])
def test_a_rank_r_update_has_r_singular_values(out: int, into: int):
    update = Factors(random(out, 5), random(5, into, seed=1))
    expected = torch.linalg.svdvals(update.dense())
    for found in (svd(update), svd(update.dense())):
        assert len(found.values) == 5
        torch.testing.assert_close(found.values, expected[:5])
        torch.testing.assert_close(found.left.T @ found.left, torch.eye(5, dtype=torch.float64), atol=1e-6, rtol=0)
        torch.testing.assert_close(found.left * found.values @ found.right.T, update.dense(), atol=1e-6, rtol=0)
    assert deltas.norm(update) == pytest.approx(float(torch.linalg.norm(update.dense())))


def test_a_full_matrix_has_all_its_singular_values():
    matrix = random(30, 20)
    torch.testing.assert_close(svd(matrix).values, torch.linalg.svdvals(matrix))


def test_no_update_has_no_singular_values():
    for update in (Factors(torch.zeros(6, 2), torch.ones(2, 5)), torch.zeros(6, 5)):
        found = svd(update)
        assert found.left.shape == (6, 0) and found.right.shape == (5, 0)
        assert set(shape(found.values).values()) == {None}


def test_shape_by_hand():
    """σ = (2, 1): p = (2/3, 1/3), q = (4/5, 1/5).

    Stable rank 5/4; effective rank exp(H(p)) = 3/2^(2/3) = 1.889882; participation ratio 1/(16/25 + 1/25) = 25/17;
    .8 of the energy lies in the first, so .9 takes both.
    """
    found = shape(torch.tensor([2.0, 1.0]))
    assert list(found.values()) == pytest.approx([5 / 4, 3 / 2 ** (2 / 3), 25 / 17, 2])


def test_shape_of_equal_values_counts_them():
    """Ten equal ones: ten directions, nine of which hold 90 %; the unit does not matter."""
    for scale in (1e-6, 1, 1e6):
        assert list(shape(torch.full((10,), scale)).values()) == pytest.approx([10, 10, 10, 9])


def test_unchanged_by_hand():
    """Of 2 × 2, 0 and 0 leave the weight; 1 + 1e-9 is 1 in float32; 2 + 2⁻¹⁰ is 2 in bfloat16 alone (steps of 2⁻⁶)."""
    weight, update = torch.tensor([[1.0, 2.0], [4.0, 1.0]]), torch.tensor([[0.0, 2**-10], [0.0, 1e-9]])
    assert module_spectra.unchanged(weight, update) == (3 / 4, 1)
    assert module_spectra.unchanged(weight.bfloat16(), update) == (3 / 4, 1)
    factors = Factors(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0, 2**-10]]))
    assert module_spectra.unchanged(weight, factors) == (3 / 4, 1)


def test_overlap_by_hand():
    """Spans of e1, e2 and of e1, e3 share one of two directions; e1 lies in the first whole."""
    axes = np.eye(4)
    assert subspaces.overlap(axes[:, :2], axes[:, [0, 2]]) == 0.5
    assert subspaces.overlap(axes[:, :1], axes[:, :2]) == 1
    assert subspaces.overlap(axes[:, :2], axes[:, 2:]) == 0
    assert math.isnan(subspaces.overlap(axes[:, :0], axes))


@pytest.mark.parametrize(("first", "second"), [(3, 3), (2, 6)])
def test_random_subspaces_share_what_is_expected(first: int, second: int):
    """Mean of 300 draws in 24 dimensions: max(k)/24, .125 or .25, to 4 standard errors."""
    rng = np.random.default_rng(0)
    bases = [[np.linalg.qr(rng.standard_normal((24, k)))[0] for k in (first, second)] for _ in range(300)]
    shared = np.array([subspaces.overlap(*pair) for pair in bases])
    expected = subspaces.expected_overlap(*bases[0])
    assert expected == max(first, second) / 24
    assert abs(shared.mean() - expected) < 4 * shared.std() / math.sqrt(len(shared))


def test_drift_by_hand():
    """Rows e1, e2 against e1, cos t e2 + sin t e3: one of two directions turned by t, so sin² t / 2."""
    start, turned = np.eye(3)[:2], np.array([[1, 0, 0], [0, math.cos(0.4), math.sin(0.4)]])
    assert subspaces.drift(start, turned) == pytest.approx(math.sin(0.4) ** 2 / 2)
    # Mixing rows leaves their span.
    assert subspaces.drift(start, np.array([[2.0, 1, 0], [1, 5, 0]])) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("into", [20, 9])
def test_random_updates_keep_norm_and_start(into: int):
    start, update = random(4, into, seed=3), Factors(random(12, 4), random(4, into, seed=1))
    drawn, again, other = (deltas.random_like(update, start, seed) for seed in (1, 1, 2))
    assert deltas.norm(drawn) == pytest.approx(deltas.norm(update))
    assert torch.equal(drawn.left, again.left) and torch.equal(drawn.right, start)
    assert not torch.allclose(drawn.left, other.left)
    full = deltas.random_like(update.dense(), None, 1)
    assert float(torch.linalg.norm(full)) == pytest.approx(deltas.norm(update), rel=1e-5)
    assert len(svd(full).values) == min(12, into)


def test_random_updates_keep_the_largest_rank():
    """Factors whose start is unknown, as of an adapter from elsewhere: rank 4, over a Gaussian A. A matrix, as DoRA's,
    has its own rank whatever A started at.
    """
    update = Factors(random(12, 4), random(4, 9, seed=1))
    drawn = deltas.random_like(update, None, 1)
    assert len(svd(drawn).values) == 4 and deltas.norm(drawn) == pytest.approx(deltas.norm(update))
    assert len(svd(deltas.random_like(update.dense(), random(4, 9, seed=3), 1)).values) == 9


# PEFT's own layers.
@pytest.fixture(scope="module")
def base() -> Path:
    return tiny_models.folder(FAMILY)


def adapted(base: Path, folder: Path, options: dict, config: object = None):
    """A PEFT model whose every factor is random, saved in `folder`."""
    model = vlm.load_model(base)
    config = config or peft_config(model, Adapter(r=4, options=options))
    policy = get_peft_model(model, config)
    torch.manual_seed(1)
    for name, parameter in policy.named_parameters():
        if "lora_" in name and "magnitude" not in name or "hada" in name:
            parameter.data.normal_(std=0.1)
        elif "magnitude" in name:
            parameter.data.mul_(1.3)
    policy.save_pretrained(folder)
    return policy


LORAS = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 2, r".*layers\.1\.mlp\.up_proj": 3}, "alpha_pattern": {"q_proj": 5}},
}


@pytest.mark.parametrize("options", LORAS.values(), ids=LORAS)
def test_factors_are_pefts_update(base: Path, tmp_path: Path, options: dict):
    policy = adapted(base, tmp_path, options)
    milestone, stored = deltas.open_milestone(tmp_path, "adapter"), weights.Weights(base)
    layers = {name: module for name, module in vlm.bare(policy).named_modules() if isinstance(module, BaseTunerLayer)}
    assert milestone.modules(sorted(layers)) == sorted(layers) and len(layers) == 14
    for name, layer in layers.items():
        update = milestone.update(name, stored(name))
        assert isinstance(update, Factors) and milestone.rank(name) == update.right.shape[0]
        torch.testing.assert_close(update.dense(torch.float32), layer.get_delta_weight("default").detach())
    assert {milestone.rank(name) for name in layers} == ({2, 3, 4} if "rank_pattern" in options else {4})


@pytest.mark.parametrize("what", ["dora", "loha"])
def test_other_layers_are_merged(base: Path, tmp_path: Path, what: str):
    """DoRA rescales columns of W0 + BA, so its change is of full rank; LoHa is a product of two low ranks."""
    names = weights.linears(base, "attention")
    config = LoHaConfig(r=2, alpha=4, target_modules=names) if what == "loha" else None
    policy = adapted(base, tmp_path, {"use_dora": True}, config)
    milestone, stored = deltas.open_milestone(tmp_path, "adapter"), weights.Weights(base)
    found = {name: milestone.update(name, stored(name)) for name in names}
    merged = policy.merge_and_unload()
    for name, update in found.items():
        expected = merged.get_submodule(name).weight.detach() - stored(name)
        assert float(expected.abs().max()) > 1e-3
        torch.testing.assert_close(update, expected, atol=1e-6, rtol=1e-5)
    # The rank of a run's update is not bounded by r: it is larger than DoRA's 4.
    assert milestone.rank(names[0]) is None and (what == "loha" or len(svd(found[names[0]]).values) > 4)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_every_family_s_stored_weights_are_found_by_module(family: str):
    """Stored names lack the wrappers that modules have."""
    folder = tiny_models.folder(family)
    model, stored = vlm.load_model(folder), weights.Weights(folder)
    names = weights.linears(folder, "all")
    assert len(names) == 14 and {weights.layer(name) for name in names} == {0, 1}
    for name in names:
        assert torch.equal(stored(name), model.get_submodule(name).weight)
    assert {weights.kind(name) for name in weights.linears(folder, "attention")} == {
        "q_proj", "k_proj", "v_proj", "o_proj",
    }  # fmt: skip


def test_full_weights_are_subtracted(base: Path, tmp_path: Path):
    model = vlm.load_model(base)
    name = weights.linears(base, "all")[3]
    model.get_submodule(name).weight.data[2, 1] += 0.5
    model.save_pretrained(tmp_path)
    milestone, stored = deltas.open_milestone(tmp_path, "full"), weights.Weights(base)
    update = milestone.update(name, stored(name))
    assert update[2, 1] == pytest.approx(0.5) and int((update != 0).sum()) == 1
    assert milestone.rank(name) is None and milestone.rows(name) is None


def test_prompt_tuning_has_no_update(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "PROMPT_TUNING"}))
    assert deltas.open_milestone(tmp_path, "adapter") is None


def test_bad_input(base: Path, tmp_path: Path):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}/adapter_config.json: cannot be read")):
        deltas.open_milestone(tmp_path, "adapter")
    with pytest.raises(InputError, match="hold no model.nowhere"):
        weights.Weights(base)("model.nowhere")
    adapted(base, tmp_path, {})
    some = weights.linears(base, "attention")
    with pytest.raises(InputError, match="lies outside the layers"):
        deltas.open_milestone(tmp_path, "adapter").modules(some)
    # Nothing is left over: a tensor that belongs to no module is not passed over.
    file = tmp_path / "adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.extra": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="extra lies outside"):
        deltas.open_milestone(tmp_path, "adapter").modules(weights.linears(base, "all"))
