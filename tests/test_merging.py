"""Merges: rules against brute force, and merged folders against updates worked out independently."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import merge_runs
import tiny_models
from memedynamics import checkpoints, external, merging, tables, trained_on, vlm
from memedynamics.config import MergedMethod
from memedynamics.errors import InputError
from memedynamics.merge_parents import open_parent, unwrapped
from memedynamics.merging import Inner
from tiny_study import outputs, script

LAYER = "model.language_model.layers.1.self_attn.q_proj"  # has a bias


def recipe(how: str, *names: str, **given: object) -> MergedMethod:
    return MergedMethod(kind="merge", how=how, of=list(names or ("a", "b")), **given)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- rules, on one matrix


def test_coefficients_by_hand() -> None:
    """linear 1, 3: 1/4, 3/4. task arithmetic: as they are, or 1. slerp 1, 1 at 90°: sin 45°/sin 90° = √½ each."""
    assert merging.coefficients(recipe("linear", weights=[1, 3])) == {"a": 0.25, "b": 0.75}
    assert merging.coefficients(recipe("task_arithmetic", weights=[0.3, -1])) == {"a": 0.3, "b": -1}
    assert merging.coefficients(recipe("dare")) == {"a": 1, "b": 1}
    half = merging.coefficients(recipe("slerp"), Inner(4.0, 0.0, 9.0))
    assert half == pytest.approx({"a": math.sqrt(0.5), "b": math.sqrt(0.5)})


@pytest.mark.parametrize(
    ("how", "weights", "said"),
    [("linear", [1, -1], "sum to 0"), ("slerp", [2, -1], "negative"), ("ties", [2, -1], "negative")],
)
def test_weights_without_a_mean_are_refused(how: str, weights: list[float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        merging.coefficients(recipe(how, weights=weights), Inner(1.0, 0.0, 1.0))


def test_slerp_starts_and_ends_at_the_two_and_keeps_the_length() -> None:
    """Two vectors of length 5 at 60°: every point has length 5, and lies t·60° from the first."""
    a, b = np.array([5.0, 0]), 5 * np.array([math.cos(math.pi / 3), math.sin(math.pi / 3)])
    for t in np.linspace(0, 1, 11):
        first, second = merging.slerp(t, 0.5)
        point = first * a + second * b
        assert np.linalg.norm(point) == pytest.approx(5, abs=1e-12)
        assert math.atan2(point[1], point[0]) == pytest.approx(t * math.pi / 3, abs=1e-12)
    assert merging.slerp(0, 0.5) == (1, 0) and merging.slerp(1, 0.5) == pytest.approx((0, 1))


@pytest.mark.parametrize("cosine", [1.0, -1.0, 1 - 1e-9])
def test_slerp_without_an_arc_is_the_straight_line(cosine: float) -> None:
    assert merging.slerp(0.3, cosine) == (0.7, 0.3)
    assert Inner(0.0, 0.0, 2.0).cosine == 1


def test_ties_by_hand() -> None:
    """Half of 4 entries stay: (4, −3) of a, (−5, 2) of b (columns 0, 1), so a: 4 −3 0 0, b: −5 0 0 2.

    Sums −1, −3, 0, 2 elect −, −, none, +; those that agree: −5 alone, −3 alone, none, 2 alone.
    """
    a, b = torch.tensor([[4.0, -3, 1, 0.5]]), torch.tensor([[-5.0, 1, -1.5, 2]])
    assert merging.ties([a, b], [0.5, 0.5], 0.5).tolist() == [[-5, -3, 0, 2]]


def ties_brute(updates: list[np.ndarray], weights: list[float], density: float) -> np.ndarray:
    shape, kept = updates[0].shape, []
    for update in updates:
        order = np.argsort(-np.abs(update), axis=None)[: round(density * update.size)]
        flat = np.zeros(update.size)
        flat[order] = update.ravel()[order]
        kept.append(flat)
    found = np.zeros(updates[0].size)
    for i in range(len(found)):
        sign = np.sign(sum(w * k[i] for w, k in zip(weights, kept, strict=True)))
        agree = [(w, k[i]) for w, k in zip(weights, kept, strict=True) if sign and np.sign(k[i]) == sign]
        found[i] = sum(w * k for w, k in agree) / sum(w for w, _ in agree) if agree else 0
    return found.reshape(shape)


@pytest.mark.parametrize(("weights", "density"), [([1 / 3] * 3, 0.2), ([0.5, 0.3, 0.2], 0.55), ([1 / 3] * 3, 1.0)])
def test_ties_is_brute_force(weights: list[float], density: float) -> None:
    updates = [drawn(seed, 7, 9) for seed in range(3)]
    expected = ties_brute([update.double().numpy() for update in updates], weights, density)
    assert np.abs(merging.ties(updates, weights, density).numpy() - expected).max() < 1e-6


def test_dare_drops_whole_entries_and_means_the_sum() -> None:
    """Every entry of one run is 0 or ΔW/density; over 4000 seeds the mean is w·ΔW to 5 standard errors.

    An entry ΔW kept with probability p and divided by it has variance ΔW²(1 − p)/p.
    """
    a, b, p, weights = drawn(0, 3, 4), drawn(1, 3, 4), 0.3, [0.6, 0.8]
    one = merging.dare([a], [1.0], p, [3])
    assert torch.all((one == 0) | torch.isclose(one, a / p)) and 0 < (one != 0).sum() < one.numel()
    mean = sum(merging.dare([a, b], weights, p, [s, 10**6 + s]) for s in range(4000)) / 4000
    error = torch.sqrt(((0.6 * a) ** 2 + (0.8 * b) ** 2) * (1 - p) / p / 4000)
    assert torch.all((mean - (0.6 * a + 0.8 * b)).abs() < 5 * error)


def test_dare_draws_by_seed_run_and_matrix() -> None:
    updates = {"a": torch.ones(40, 40), "b": torch.ones(40, 40)}

    def draw(name: str, **given: object) -> torch.Tensor:
        method = recipe("dare", density=0.5, **given)
        return merging.merged(method, merging.coefficients(method), updates, name)

    assert torch.equal(draw("x"), draw("x"))
    assert not torch.equal(draw("x"), draw("y")) and not torch.equal(draw("x"), draw("x", seed=1))
    # Drawn apart, both stay in a quarter of the places: 4 = 1/p + 1/p. Drawn together it would be half.
    assert (draw("x") == 4).float().mean() == pytest.approx(0.25, abs=0.06)


# --- runs, on a tiny model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merge_runs.base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def runs(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("runs")
    kinds = ("lora", "rslora", "dora", "ia3", "full")
    return {kind: merge_runs.run(folder / kind, model, kind, seed) for seed, kind in enumerate(kinds)}


def merge(model: Path, runs: dict[str, tuple[Path, Path]], method: MergedMethod, folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True)
    parents, records = zip(*(runs[name] for name in method.of), strict=True)
    script("merge")(
        model=model, parents=list(parents), runs=list(records), method=method, seed=0, threads=1, **outputs(folder)
    )  # fmt: skip
    return outputs(folder)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for file in checkpoints.weight_files(folder):
        with safe_open(file, "pt") as held:
            found |= {unwrapped(name): held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
    return found


def update_of(kind: str, run: Path, model: Path) -> dict[str, np.ndarray]:
    """ΔW of every changed tensor in float64 from the papers' formulas and the stored tensors alone."""
    before, folder = {name: tensor.double().numpy() for name, tensor in tensors(model).items()}, run / "1"
    if kind == "full":
        return {name: tensor.double().numpy() - before[name] for name, tensor in tensors(folder).items()}
    held = {name: t.double().numpy() for name, t in external.load_file(folder / external.ADAPTER).items()}
    config, found = json.loads((folder / external.WHERE).read_text()), {}
    for module in {
        name.removeprefix("base_model.model.").partition(".lora_")[0].removesuffix(".ia3_l") for name in held
    }:
        key, weight = f"base_model.model.{module}", before[unwrapped(f"{module}.weight")]
        if kind == "ia3":
            scale = held[f"{key}.ia3_l"]
            found[unwrapped(f"{module}.weight")] = weight * (scale - 1)
            if unwrapped(f"{module}.bias") in before and not module.endswith("down_proj"):
                found[unwrapped(f"{module}.bias")] = before[unwrapped(f"{module}.bias")] * (scale[:, 0] - 1)
            continue
        scaling = config["lora_alpha"] / (math.sqrt(config["r"]) if kind == "rslora" else config["r"])
        change = scaling * held[f"{key}.lora_B.weight"] @ held[f"{key}.lora_A.weight"]
        if kind == "dora":
            moved = weight + change
            magnitude = held[f"{key}.lora_magnitude_vector"]
            change = magnitude[:, None] * moved / np.linalg.norm(moved, axis=1, keepdims=True) - weight
        found[unwrapped(f"{module}.weight")] = change
    return found


@pytest.mark.parametrize("kinds", [("lora", "rslora", "dora"), ("ia3", "full")])
def test_a_merged_folder_is_base_plus_weighted_updates(
    model: Path, runs: dict, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    """Loaded by transformers, against float64: off by float32's rounding, 2⁻²⁴ of an entry, and a few of its terms."""
    weights = [0.5, -0.7, 1.2][: len(kinds)]
    found = merge(model, runs, recipe("task_arithmetic", *kinds, weights=weights), tmp_path / "run")
    loaded = {unwrapped(name): value for name, value in vlm.load_model(found["milestones"] / "1").state_dict().items()}
    changes = [update_of(kind, runs[kind][0], model) for kind in kinds]
    moved = 0.0
    for name, before in tensors(model).items():
        change = sum(w * c[name] for w, c in zip(weights, changes, strict=True) if name in c)
        moved = max(moved, np.abs(change).max()) if np.ndim(change) else moved
        exact = before.double().numpy() + change
        assert np.abs(loaded[name].numpy() - exact).max() < 1e-6 * max(1, np.abs(exact).max()), name
    assert moved > 0.02


def test_a_half_precision_base_is_rounded_once(tmp_path: Path) -> None:
    """Each entry is within half a bfloat16 step, 2⁻⁸ relative, of the exact one; two roundings would exceed it."""
    model = merge_runs.base(tmp_path / "model", "bfloat16")
    runs = {kind: merge_runs.run(tmp_path / kind, model, kind, seed) for seed, kind in enumerate(("lora", "dora"))}
    found = merge(model, runs, recipe("linear", "lora", "dora"), tmp_path / "run")
    changes = [update_of(kind, runs[kind][0], model) for kind in runs]
    merged = tensors(found["milestones"] / "1")
    for name, before in tensors(model).items():
        assert merged[name].dtype == torch.bfloat16
        change = sum(0.5 * c[name] for c in changes if name in c)
        exact = torch.as_tensor(before.double().numpy() + change)
        # Where the exact value lies in the middle of a step, float32's rounding may tip it: one part in a thousand.
        close = (merged[name].double() - exact).abs() <= exact.abs() * 2**-8 * 1.001 + 1e-12
        assert close.all(), name


def test_the_merged_folder_has_the_bases_files(model: Path, runs: dict, tmp_path: Path) -> None:
    found = merge(model, runs, recipe("linear", "lora", "dora"), tmp_path / "run")
    names = {file.name for file in checkpoints.weight_files(model)}
    assert len(names) > 1
    assert {file.name for file in checkpoints.weight_files(found["milestones"] / "1")} == names
    same = {
        name for name, value in tensors(found["milestones"] / "1").items() if torch.equal(value, tensors(model)[name])
    }
    assert any("visual" in name for name in same) and unwrapped(f"{LAYER}.bias") in same
    assert unwrapped(f"{LAYER}.weight") not in same
    start = vlm.load_model(found["milestones"] / "0")
    assert torch.equal(merge_runs.logits(start), merge_runs.logits(vlm.load_model(model)))


def test_run_json_and_empty_tables(model: Path, runs: dict, tmp_path: Path) -> None:
    found = merge(model, runs, recipe("slerp", "lora", "dora", weights=[1, 3]), tmp_path / "run")
    record = json.loads(found["run"].read_text())
    assert (record["kind"], record["reference"], record["steps"]) == ("full", "base", {"0": 0, "1": None})
    assert record["total_steps"] is None and record["merge"]["of"] == ["lora", "dora"]
    a, b = (update_of(kind, runs[kind][0], model) for kind in ("lora", "dora"))
    aa, ab, bb = (sum((x[n] * y[n]).sum() for n in a) for x, y in ((a, a), (a, b), (b, b)))
    assert record["merge"]["cosine"] == pytest.approx(ab / math.sqrt(aa * bb), abs=1e-6)
    assert record["merge"]["coefficients"] == pytest.approx(merging.slerp(0.75, ab / math.sqrt(aa * bb)))
    for name in ("history", "rollouts"):
        assert tables.read(found[name], name).is_empty()
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "ia3", "full"])
@pytest.mark.parametrize("how", ["linear", "slerp"])
def test_all_the_weight_on_one_run_is_that_run(model: Path, runs: dict, tmp_path: Path, kind: str, how: str) -> None:
    other = "rslora" if kind == "lora" else "lora"
    found = merge(model, runs, recipe(how, kind, other, weights=[1, 0]), tmp_path / "run")
    merged = merge_runs.logits(vlm.load_model(found["milestones"] / "1"))
    alone = merge_runs.logits(merge_runs.ended(*runs[kind], model))
    moved = (alone - merge_runs.logits(vlm.load_model(model))).abs().max()
    assert (merged - alone).abs().max() < 1e-5 < 1e-2 < moved


def test_a_run_merged_with_itself_is_that_run(model: Path, runs: dict, tmp_path: Path) -> None:
    twins = {"a": runs["dora"], "b": runs["dora"]}
    alone = tensors(
        merge(model, runs, recipe("linear", "dora", "lora", weights=[1, 0]), tmp_path / "one")["milestones"] / "1"
    )
    for how, given in {"linear": {}, "slerp": {}, "ties": {"density": 1.0}}.items():
        found = tensors(merge(model, twins, recipe(how, **given), tmp_path / how)["milestones"] / "1")
        assert all(torch.allclose(found[name], alone[name], atol=1e-6) for name in alone), how


@pytest.mark.parametrize("how", ["ties", "dare"])
def test_whole_models_follow_the_rule_matrix_by_matrix(model: Path, runs: dict, tmp_path: Path, how: str) -> None:
    method = recipe(how, "lora", "full", density=0.3)
    found = tensors(merge(model, runs, method, tmp_path / "run")["milestones"] / "1")
    name = unwrapped(f"{LAYER}.weight")
    before = tensors(model)[name]
    updates = [torch.as_tensor(update_of(kind, runs[kind][0], model)[name]).float() for kind in method.of]
    change = (found[name] - before).double().numpy()
    if how == "ties":
        expected = ties_brute([update.double().numpy() for update in updates], [0.5, 0.5], 0.3)
        assert np.abs(change - expected).max() < 1e-5
    else:
        sums = [0, 1 / 0.3 * updates[0], 1 / 0.3 * updates[1], (updates[0] + updates[1]) / 0.3]
        near = torch.stack([(torch.as_tensor(change) - s).abs() for s in sums]).min(dim=0).values
        assert near.max() < 1e-5 and 0.3 < (np.abs(change) > 1e-7).mean() < 0.7


# --- what cannot be merged


def test_an_adapter_of_another_base_is_named(model: Path, runs: dict, tmp_path: Path) -> None:
    other, record = merge_runs.run(tmp_path / "other", model, "lora", 9)
    weights = external.load_file(other / "1" / external.ADAPTER)
    deeper = {name.replace("layers.1.", "layers.40."): value for name, value in weights.items()}
    external.save_file(deeper, other / "1" / external.ADAPTER)
    with pytest.raises(InputError, match=r"other/milestones/1: adapts .*layers\.40.*trained on another base"):
        merge(model, {**runs, "other": (other, record)}, recipe("linear", "lora", "other"), tmp_path / "run")
    assert not any(path.exists() for path in outputs(tmp_path / "run").values())


def test_full_weights_of_another_base_are_named(model: Path, runs: dict, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/1").symlink_to(tiny_models.folder("llava"))
    (tmp_path / "run.json").write_text('{"kind": "full"}')
    with pytest.raises(InputError, match="other/1: is a llava, the base model a qwen2_5_vl: trained on another base"):
        open_parent(tmp_path / "other", tmp_path / "run.json", model)


@pytest.mark.parametrize("kind", ["lora", "ia3", "full"])
def test_a_run_of_another_base_of_equal_shapes_is_named(model: Path, runs: dict, tmp_path: Path, kind: str) -> None:
    """Its note says so; runs that have none, and those of this base, are merged, and their merge says of which."""
    milestones, record = merge_runs.run(tmp_path / "other", model, kind, 9)
    note = {"source": "elsewhere", "revision": None, "digest": "0" * 64}
    (milestones / "1" / trained_on.FILE).write_text(json.dumps(note))
    given, method = {**runs, "other": (milestones, record)}, recipe("linear", "lora", "other")
    with pytest.raises(InputError, match=r"other/milestones/1: was trained on elsewhere \(digest 0{12}\), the study's"):
        merge(model, given, method, tmp_path / "run")
    trained_on.keep(model, milestones / "1")
    found = merge(model, given, method, tmp_path / "again")["milestones"]
    assert json.loads((found / "1" / trained_on.FILE).read_text())["digest"] == checkpoints.weights_digest(model)


def test_prompt_tuning_is_nothing_to_merge(model: Path, runs: dict, tmp_path: Path) -> None:
    (tmp_path / "soft/1").mkdir(parents=True)
    (tmp_path / "soft/1/adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}')
    with pytest.raises(InputError, match="soft/1: changes no weight"):
        open_parent(tmp_path / "soft", runs["lora"][1], model)
