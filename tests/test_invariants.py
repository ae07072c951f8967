"""Preflight through its own script on a tiny study: what it reports, and each invariant broken for real."""

import json
import math
from pathlib import Path

import polars as pl
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from trl import DPOConfig

import tiny_models
import tiny_study
from memedynamics import checksums, first_step, forced_logps, invariants, modes, tables
from memedynamics import sampling as drawing
from memedynamics.adapters import peft_config
from memedynamics.config import Adapter, BaseModelConfig, Sampling
from memedynamics.errors import InputError
from memedynamics.examples import training_rows
from memedynamics.grading import graded
from memedynamics.vlm import load_model, load_processor
from tiny_study import PROMPT, REWARDS

KINDS = ("sft", "dpo", "grpo", "rft", "em")
COMMON = {"sampled", "scored", "adapter_off", "prompts", "reloaded", "merged"}
OWN = {
    "dpo": {"dpo_margin", "dpo_loss"}, "kto": {"kto_margin", "kto_kl", "kto_loss"}, "grpo": {"grpo_kl"},
    "rloo": {"rloo_kl"}, "em": {"em_entropy"},
}  # fmt: skip
SAMPLING = Sampling(num_samples=2, max_new_tokens=12, batch_size=4)
VLLM = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": "0.4", "vllm_enable_sleep_mode": True}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny study with base samples, drawn as `sample_base` draws them."""
    folder = tiny_study.write_study(tmp_path_factory.mktemp("study"), 6)
    write_samples(folder, "qwen2_5_vl")
    return folder


def write_samples(folder: Path, family: str, dtype: str = "float32") -> Path:
    model, processor = load_model(tiny_models.folder(family), dtype), load_processor(tiny_models.folder(family))
    sampler = drawing.sampler(model, processor, PROMPT, SAMPLING)
    memes = tables.read(folder / "data.parquet", "data")
    path = folder / f"samples_{family}_{dtype}.parquet"
    samples = graded(drawing.draw(sampler, memes, "hateful", 0.0), memes, REWARDS, PROMPT)
    # Random responses are never good, and rft trains on those that are.
    tables.write(samples.with_columns(correct=pl.lit(True), format_ok=pl.lit(True)), path, "samples")
    return path


def preflight(kind: str, study: Path, work: Path, family: str = "qwen2_5_vl", **changed: object) -> dict:
    """Run the script in this process; `changed` are paths or settings instead of the study's. Returns the report."""
    work.mkdir(exist_ok=True)
    given = {**tiny_study.inputs(study, family), "samples": study / f"samples_{family}_float32.parquet"}
    given |= {"report": work / "report.json", "work": work, "threads": 1, "rewards": REWARDS, "sampling": SAMPLING}
    settings = tiny_study.settings(kind, **changed.pop("args", {}))
    shared = {name: changed.pop(name) for name in ("adapter", "base") if name in changed}
    given |= {"method": settings["method"], "matched": settings["matched"].model_copy(update=shared)}
    tiny_study.script("preflight")(**{**given, **changed})
    report = json.loads((work / "report.json").read_text())
    return {name: found for name, found in report.items() if name != checksums.KEY}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_holds(kind: str, study: Path, tmp_path: Path) -> None:
    report = preflight(kind, study, tmp_path)
    assert set(report) == COMMON | OWN.get(kind, set())
    for name, found in report.items():
        assert found["ok"], name
        # Well inside: what holds exactly is exact, sums in another order differ by some 1e-7.
        assert found["value"] <= max(found["tolerance"] / 5, 0), (name, found)
    assert report["adapter_off"]["value"] == report["prompts"]["value"] == 0


@pytest.mark.parametrize(
    ("adapter", "kind"),
    [("rslora", "dpo"), ("dora", "dpo"), ("ia3", "dpo"), ("qlora", "dpo"), ("full", "dpo"), ("full", "grpo"),
     ("full", "em"), ("qlora", "em"), ("qlora", "grpo"), ("full", "kto"), ("full", "rloo")],
)  # fmt: skip
def test_everything_holds_for_every_adapter(adapter: str, kind: str, study: Path, tmp_path: Path) -> None:
    """Full weights have no adapter that could be off or merged; QLoRA's base is 0.005 nat a token off."""
    report = preflight(kind, study, tmp_path, adapter=Adapter(kind=adapter, r=4))
    expected = COMMON | OWN[kind] | ({"quantised"} if adapter == "qlora" else set())
    expected = expected - {"adapter_off", "merged"} | {"start"} if adapter == "full" else expected
    assert set(report) == expected
    assert all(found["value"] <= found["tolerance"] / 5 for found in report.values()), report
    if adapter == "qlora":
        assert 0.001 < report["quantised"]["value"] < 0.2


@pytest.mark.parametrize("adapter", ["full", "qlora"])
def test_adapters_at_half_precision(adapter: str, study: Path, tmp_path: Path) -> None:
    samples = write_samples(study, "qwen2_5_vl", "bfloat16")
    given = {"base": BaseModelConfig(source="tiny", dtype="bfloat16"), "samples": samples}
    report = preflight("dpo", study, tmp_path, adapter=Adapter(kind=adapter, r=4), **given)
    assert all(found["value"] <= found["tolerance"] / 5 for found in report.values()), report
    assert report["dpo_margin"]["value"] == 0


@pytest.mark.parametrize("reference", ["base", "parent"])
@pytest.mark.parametrize(
    ("adapter", "kind"), [("lora", "dpo"), ("full", "dpo"), ("ia3", "dpo"), ("lora", "grpo"), ("ia3", "rloo")]
)
def test_a_run_that_begins_at_anothers_end(
    adapter: str, kind: str, reference: str, study: Path, tmp_path: Path
) -> None:
    """It is its parent's end. Of the first step something is known against the parent alone: ln 2, or 0."""
    matched = tiny_study.MATCHED.model_copy(update={"adapter": Adapter(kind=adapter, r=4)})
    where = {**tiny_study.inputs(study), **tiny_study.outputs(tmp_path), "work": tmp_path / "work", "threads": 1}
    tiny_study.script("train_sft")(**where, **{**tiny_study.settings("sft", max_steps=2), "matched": matched})
    method = tiny_study.recipe(kind).model_copy(update={"start": "sft", "reference": reference})
    given = {"start": tmp_path / "milestones", "adapter": matched.adapter, "method": method}
    report = preflight(kind, study, tmp_path / "preflight", **given)
    assert OWN[kind] & set(report) == (OWN[kind] if reference == "parent" else set())
    assert all(found["ok"] for found in report.values())
    assert ("reference" in report) == (reference == "base") and report["parent"]["value"] < 1e-5


def test_a_reference_that_is_not_the_base(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's copy of what the parent learnt left in place; full weights whose reference is read from the parent."""
    for kind in ("lora", "full"):
        work = tmp_path / kind
        matched = tiny_study.MATCHED.model_copy(update={"adapter": Adapter(kind=kind, r=4)})
        where = {**tiny_study.inputs(study), **tiny_study.outputs(work), "work": work / "work", "threads": 1}
        tiny_study.script("train_sft")(**where, **{**tiny_study.settings("sft", max_steps=2), "matched": matched})
        method = tiny_study.recipe("dpo").model_copy(update={"start": "sft", "reference": "parent"})
        with monkeypatch.context() as patch:
            patch.setattr(invariants, "measure", lambda *given: MEASURE(*given[:-1], True))
            with pytest.raises(InputError, match="reference is off by .*compares with another policy than the base"):
                preflight("dpo", study, work, start=work / "milestones", adapter=matched.adapter, method=method)


def test_a_start_that_is_not_the_parents_end(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = {**tiny_study.inputs(study), **tiny_study.outputs(tmp_path), "work": tmp_path / "work", "threads": 1}
    tiny_study.script("train_sft")(**where, **tiny_study.settings("sft", max_steps=2))
    method = tiny_study.recipe("dpo").model_copy(update={"start": "sft", "reference": "base"})
    ended = invariants._ended
    monkeypatch.setattr(invariants, "_ended", lambda reader, model, end: ended(reader, model, end.with_name("0")))
    with pytest.raises(InputError, match="parent is off by .*; likely cause: the run that it begins at was changed"):
        preflight("dpo", study, tmp_path / "preflight", start=tmp_path / "milestones", method=method)


@pytest.mark.parametrize(
    ("adapter", "args", "said"),
    [
        (Adapter(options={"init_lora_weights": "olora"}), {}, "'olora': changes the base weights"),
        (Adapter(), {"packing": True}, "trainer argument packing: TRL cannot for vision data"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(
    adapter: Adapter, args: dict, said: str, study: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        preflight("sft", study, tmp_path, adapter=adapter, args=args, model=tmp_path / "nowhere")


def test_groups_that_no_meme_names_are_missed_before_anything_trains(study: Path, tmp_path: Path) -> None:
    method = tiny_study.recipe("sft").model_copy(update={"target": "groups"})
    with pytest.raises(InputError, match="target groups, but no hateful training meme names a group"):
        preflight("sft", study, tmp_path, method=method, model=tmp_path / "nowhere")


def test_vllm_is_not_started(study: Path, tmp_path: Path) -> None:
    """TRL would start it with the trainer, and it is not installed here: preflight's responses are drawn without."""
    report = preflight("grpo", study, tmp_path, args=VLLM)
    assert all(found["ok"] for found in report.values())


@pytest.mark.parametrize("family", [family for family in tiny_models.FAMILIES if family != "qwen2_5_vl"])
def test_everything_holds_for_every_family(family: str, study: Path, tmp_path: Path) -> None:
    write_samples(study, family)
    assert all(found["ok"] for found in preflight("dpo", study, tmp_path, family).values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_everything_holds_at_half_precision(dtype: str, study: Path, tmp_path: Path) -> None:
    samples = write_samples(study, "qwen2_5_vl", dtype)
    report = preflight("dpo", study, tmp_path, base=BaseModelConfig(source="tiny", dtype=dtype), samples=samples)
    assert all(found["value"] <= found["tolerance"] / 5 for found in report.values())
    assert all(report[name]["value"] < 1e-6 for name in ("adapter_off", "dpo_margin", "dpo_loss"))
    # Merged weights are rounded to the dtype, which float32 would not explain: the tolerance has to know the dtype.
    assert report["merged"]["value"] > forced_logps.TOLERANCE["float32"] / 5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_grpo_starts_at_the_reference_at_half_precision(dtype: str, study: Path, tmp_path: Path) -> None:
    samples = write_samples(study, "qwen2_5_vl", dtype)
    report = preflight("grpo", study, tmp_path, base=BaseModelConfig(source="tiny", dtype=dtype), samples=samples)
    assert report["grpo_kl"]["value"] == report["adapter_off"]["value"] == 0
    assert report["grpo_kl"]["tolerance"] == 1e-5


def tampered_samples(study: Path, folder: Path, by: float) -> Path:
    """The samples with the stored log-probability of the first meme's second response off by `by` nat."""
    samples = tables.read(study / "samples_qwen2_5_vl_float32.parquet", "samples")
    first = (pl.col("id") == "m00") & (pl.col("sample") == 1)
    changed = samples.with_columns(logp=pl.when(first).then(pl.col("logp") + by).otherwise("logp"))
    tables.write(changed, folder / "samples.parquet", "samples")
    return folder / "samples.parquet"


def test_a_perturbed_log_probability(study: Path, tmp_path: Path) -> None:
    """12 tokens off by 0.12 nat in all: 0.01 nat a token."""
    message = (
        r"preflight of sft: sampled is off by 0\.01.*, and float32 explains no more than 0\.0001; likely cause: .*hand"
    )
    with pytest.raises(InputError, match=message):
        preflight("sft", study, tmp_path, samples=tampered_samples(study, tmp_path, 0.12))
    assert not (tmp_path / "report.json").exists()
    preflight("sft", study, tmp_path, samples=tampered_samples(study, tmp_path, 1e-4))


def test_another_base_model(study: Path, tmp_path: Path) -> None:
    """One layer's weights changed after the samples were drawn."""
    model, processor = (load(tiny_models.folder("qwen2_5_vl")) for load in (load_model, load_processor))
    with torch.no_grad():
        model.get_decoder().layers[1].mlp.down_proj.weight.mul_(1.5)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="sampled is off by .*the model or its samples were exchanged"):
        preflight("grpo", study, tmp_path, model=tmp_path / "model")


MEASURE = invariants.measure
PISSA = Adapter(r=4, options={"init_lora_weights": "pissa"})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_pissa_changes_the_base(
    kind: str, dtype: str, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PiSSA subtracts the adapter's start from the weights: without the adapter the base is gone.

    It is refused before anything is loaded; here it is let through, to be caught by what it does.
    """
    monkeypatch.setattr(modes, "check", lambda *_: None)
    changed = {
        "base": BaseModelConfig(source="tiny", dtype=dtype),
        "samples": write_samples(study, "qwen2_5_vl", dtype),
    }
    with pytest.raises(InputError, match="adapter_off is off by .*remove adapter.options.init_lora_weights"):
        preflight(kind, study, tmp_path, adapter=PISSA, **changed)


@pytest.mark.parametrize(("kind", "name", "beta"), [("dpo", "dpo_margin", 1.0), ("grpo", "grpo_kl", 0.04)])
def test_pissa_moves_the_first_step_at_half_precision(
    kind: str, name: str, beta: float, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By less than rounding could, so the numbers that the trainers log must be exact to show it."""
    monkeypatch.setattr(invariants, "adapter_off", lambda *_: {})
    monkeypatch.setattr(modes, "check", lambda *_: None)
    changed = {"base": BaseModelConfig(source="tiny", dtype="bfloat16"), "args": {"beta": beta}}
    samples = write_samples(study, "qwen2_5_vl", "bfloat16")
    with pytest.raises(InputError, match=f"{name} is off by .*the policy does not start at the reference"):
        preflight(kind, study, tmp_path, adapter=PISSA, samples=samples, **changed)


def test_half_precision_does_not_explain_another_loss() -> None:
    """PiSSA's loss of 0.6955 is ln 2 + 0.0024: bfloat16 would explain 0.1."""
    nats = forced_logps.TOLERANCE["bfloat16"]
    for loss, holds in ((0.6955, False), (0.6932, True)):
        log = {"rewards/margins": 0.0, "loss": loss}
        assert first_step.logged(DPOConfig(bf16=False), log, nats)["dpo_loss"].ok == holds


@pytest.mark.parametrize(("kind", "name"), [("dpo", "dpo_margin"), ("grpo", "grpo_kl")])
def test_a_start_away_from_the_reference(
    kind: str, name: str, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both factors random the base is intact, but the policy does not start there."""
    monkeypatch.setattr(modes, "check", lambda *_: None)
    random = Adapter(r=4, options={"init_lora_weights": False})
    with pytest.raises(InputError, match=f"{name} is off by .*the policy does not start at the reference"):
        preflight(kind, study, tmp_path, adapter=random)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_trainer_that_cuts_the_prompt(kind: str, study: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prompts is off by .*a trainer argument cuts or changes what the model reads"):
        preflight(kind, study, tmp_path, args={"max_length": 30})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"args": {"num_generations": 3}}, "num_generations: 3 does not divide the generation batch of 8 completions"),
        ({"args": {"num_generation": 4}}, "trainer argument num_generation: .*nearest is num_generations"),
        ({"rewards": {"tiny_study.lengths": 1.0}}, "rewards.tiny_study.lengths: tiny_study has no function lengths"),
        ({"rewards": {"math.nan": 1.0}}, "rewards.math.nan: math has no function nan"),
    ],
)
def test_what_grpo_is_told(changed: dict, message: str, study: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        preflight("grpo", study, tmp_path, **changed)
    assert not (tmp_path / "report.json").exists()


@pytest.fixture
def reader(study: Path) -> forced_logps.Reader:
    """Two memes of the study with their samples, to check single invariants with."""
    model, processor = (load(tiny_models.folder("qwen2_5_vl")) for load in (load_model, load_processor))
    pairs, memes = (tables.read(study / f"{name}.parquet", name) for name in ("preferences", "data"))
    rows = training_rows(pairs, memes, PROMPT, "hateful", "paired").head(2)
    samples = tables.read(study / "samples_qwen2_5_vl_float32.parquet", "samples")
    return forced_logps.reader(model, processor, PROMPT, rows, samples, 2)


def test_a_family_that_counts_positions_differently(reader: forced_logps.Reader) -> None:
    """Positions of what continues a prompt one too far: whole sequences are as before, continued prompts are not."""

    def shifted(module: torch.nn.Module, args: tuple, inputs: dict) -> tuple[tuple, dict]:
        past = inputs.get("past_key_values")
        further = past is not None and past.get_seq_length() > 0
        return args, {**inputs, "position_ids": inputs["position_ids"] + 1} if further else inputs

    model = load_model(tiny_models.folder("qwen2_5_vl"))
    for layer in model.get_decoder().layers:
        # Random attention is almost even, so that positions hardly matter: make it sharp.
        layer.self_attn.q_proj.weight.mul_(100)
    hook = model.get_decoder().register_forward_pre_hook(shifted, with_kwargs=True)
    assert not invariants.base(reader, model, reader.plain(model), 1e-4)["scored"].ok
    hook.remove()
    assert invariants.base(reader, model, reader.plain(model), 1e-4)["scored"].ok


def test_a_folder_that_lost_weights(reader: forced_logps.Reader, tmp_path: Path) -> None:
    """One factor of the saved adapter zeroed: what is loaded is not what was saved."""
    model = load_model(tiny_models.folder("qwen2_5_vl"))
    policy = get_peft_model(model, peft_config(model, Adapter(r=4)))
    moved = invariants.moved(reader, policy, tmp_path / "adapter")
    assert forced_logps.gap(moved, reader.plain(load_model(tiny_models.folder("qwen2_5_vl")))) > 1e-3
    file = tmp_path / "adapter/adapter_model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "layers.1" in name and "down_proj.lora_B" in name)
    save_file({**weights, name: torch.zeros_like(weights[name])}, file)
    found = invariants.loaded(reader, policy.unload(), tmp_path / "adapter", moved, 1e-4)
    assert (found["reloaded"].ok, found["merged"].ok) == (False, True)


def test_tied_layers_do_not_merge(reader: forced_logps.Reader, tmp_path: Path) -> None:
    """Two layers share one weight: merging the adapter of either changes both."""
    model = load_model(tiny_models.folder("qwen2_5_vl"))
    first, second = (layer.mlp.down_proj for layer in model.get_decoder().layers)
    second.weight = first.weight
    policy = get_peft_model(model, peft_config(model, Adapter(r=4)))
    moved = invariants.moved(reader, policy, tmp_path / "adapter")
    found = invariants.loaded(reader, policy.unload(), tmp_path / "adapter", moved, 1e-4)
    assert (found["reloaded"].ok, found["merged"].ok) == (True, False)


def test_nan_never_holds() -> None:
    """The loss is off by |0.75 − ln 2| = 0.0569; a NaN is no small number."""
    found = first_step.logged(DPOConfig(bf16=False), {"rewards/margins": math.nan, "loss": 0.75}, 0.05)
    assert found["dpo_loss"].value == pytest.approx(0.0569, abs=1e-4)
    assert not any(invariant.ok for invariant in found.values())
    with pytest.raises(InputError, match="preflight of dpo: dpo_margin is off by nan"):
        invariants.require("dpo_margin", found["dpo_margin"], "dpo", "float32")


def test_a_loss_without_a_known_start_is_not_checked() -> None:
    log = {"rewards/margins": 0.0, "loss": 25.0}
    assert set(first_step.logged(DPOConfig(bf16=False, loss_type="ipo"), log, 1e-4)) == {"dpo_margin"}
