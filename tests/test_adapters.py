"""Every kind of adapter and full weights: what trains, where it starts, what is saved, resumed, scored, refused."""

import functools
import json
import logging
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import tiny_models
import tiny_study
from memedynamics import (
    adapters,
    checkpoints,
    deltas,
    external,
    modes,
    parameters,
    policies,
    runs,
    saving,
    soft_prompts,
    tables,
    training,
    vlm,
    weights,
)
from memedynamics.config import Adapter, BaseModelConfig
from memedynamics.errors import InputError
from memedynamics.examples import training_rows
from memedynamics.layers import PRESETS
from memedynamics.methods import ON_POLICY, rule_of
from memedynamics.rewards import reward_functions
from memedynamics.starting import starting_policy

KINDS = ("lora", "rslora", "dora", "qlora", "ia3", "full")
BASE = BaseModelConfig(source="tiny", dtype="float32")
FAMILY = "qwen2_5_vl"


def small(kind: str, **keys: object) -> Adapter:
    return Adapter(kind=kind, r=4, **keys)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_study.write_study(tmp_path_factory.mktemp("study"), 8)


@pytest.fixture
def train(study: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a training script with an adapter of a kind."""

    def run(method: str, kind: str, folder: Path, family: str = FAMILY, **args: object) -> dict[str, Path]:
        monkeypatch.setattr(tiny_study, "MATCHED", tiny_study.MATCHED.model_copy(update={"adapter": small(kind)}))
        return tiny_study.train(method, study, folder, family, **args)

    return run


# --- layers ---


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("all", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("attention", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("mlp", {"gate_proj", "up_proj", "down_proj"}),
        ("qv", {"q_proj", "v_proj"}),
        ("qv_high", {"q_proj", "v_proj"}),
        (r"layers\.1\.mlp\..*", {"gate_proj", "up_proj", "down_proj"}),
    ],
)
def test_layers_mean_the_same_everywhere(family: str, layers: str, expected: set[str]) -> None:
    """Of two layers, qv_high and the expression mean the second; in the model, PEFT, the headers and the files."""
    folder, model = tiny_models.folder(family), vlm.load_model(tiny_models.folder(family))
    names = adapters.text_linears(model, layers)
    numbers = {1} if "high" in layers or "1" in layers else {0, 1}
    assert {(weights.layer(name), weights.kind(name)) for name in names} == {(n, k) for n in numbers for k in expected}
    assert weights.linears(folder, layers) == names
    policy = get_peft_model(model, adapters.peft_config(model, Adapter(r=3, layers=layers)))
    assert policy.base_model.targeted_module_names == names
    assert parameters.trainable_parameters(folder, Adapter(r=3, layers=layers)) == trainable(policy)


def trainable(policy: nn.Module) -> int:
    return sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ("atention", "adapter.layers: no preset 'atention'; the nearest of all, attention, .* is attention"),
        ("qv-low", "no preset 'qv-low'; .* is qv"),
        ("(", "'\\(' is no regular expression"),
        (r".*\.c_attn", "matches no linear layer of the text decoder, such as layers.0.self_attn.q_proj"),
    ],
)
def test_layers_that_mean_nothing(layers: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        adapters.text_linears(vlm.load_model(tiny_models.folder(FAMILY)), layers)


def test_all_presets_are_known_to_the_study() -> None:
    for preset in PRESETS:
        modes.check(Adapter(layers=preset), {})


# --- kinds ---


def test_peft_is_told_what_the_kinds_are() -> None:
    model = vlm.load_model(tiny_models.folder(FAMILY))
    made = {kind: adapters.peft_config(model, small(kind)) for kind in KINDS if kind != "full"}
    assert {kind: (c.lora_alpha, c.use_rslora, c.use_dora) for kind, c in made.items() if kind != "ia3"} == {
        "lora": (8, False, False),
        "rslora": (8, True, False),
        "dora": (8, False, True),
        "qlora": (8, False, False),
    }
    policy = get_peft_model(model, made["ia3"])
    layer = policy.get_base_model().get_decoder().layers[0]
    # q gives out 32 channels, v 16; down_proj takes in 48 and gives out 32.
    sizes = [part.ia3_l["default"].numel() for part in (layer.self_attn.q_proj, layer.self_attn.v_proj)]
    assert [*sizes, layer.mlp.down_proj.ia3_l["default"].numel()] == [32, 16, 48]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "smolvlm"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "qlora"])
def test_trainable_parameters_are_counted_from_headers(family: str, kind: str) -> None:
    folder = tiny_models.folder(family)
    policy = starting_policy(folder, BASE, small(kind))
    if kind != "full":
        policy = get_peft_model(policy, adapters.peft_config(policy, small(kind)))
    assert parameters.trainable_parameters(folder, small(kind)) == trainable(policy)


def test_parameters_by_hand() -> None:
    """Two layers: outs 32 + 16 + 16 + 32 + 48 + 48 + 32 = 224 for DoRA's magnitudes; IA³ takes 48 for down_proj."""
    folder = tiny_models.folder(FAMILY)
    lora = 4 * 2 * (64 + 48 + 48 + 64 + 80 + 80 + 80)
    expected = {"lora": lora, "rslora": lora, "qlora": lora, "dora": lora + 448, "ia3": 480}
    expected |= {"prompt": 16 * 32, "prefix": 16 * 2 * (16 + 16)}
    assert {kind: parameters.trainable_parameters(folder, small(kind)) for kind in expected} == expected


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
def test_full_trains_all_but_tower_and_projector(family: str) -> None:
    model = starting_policy(tiny_models.folder(family), BaseModelConfig(source="tiny", dtype="bfloat16"), small("full"))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen and all(re.search("vision|visual|projector", name) for name in frozen)
    assert model.get_output_embeddings().weight.requires_grad and model.dtype == torch.float32


def test_only_the_decoders_layers_are_in_four_bits() -> None:
    from bitsandbytes.nn import Linear4bit

    for family in tiny_models.FAMILIES:
        model = starting_policy(tiny_models.folder(family), BASE, small("qlora"))
        quantised = [name for name, module in model.named_modules() if isinstance(module, Linear4bit)]
        assert quantised == adapters.text_linears(model)


# --- training, end to end ---


@pytest.mark.parametrize("method", ["sft", "dpo"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_every_kind(kind: str, method: str, train, tmp_path: Path) -> None:
    """Starts at the base, moves all that trains, and scoring finds what training left."""
    made = train(method, kind, tmp_path, max_steps=2)
    record, stored = json.loads(made["run"].read_text()), "full" if kind == "full" else "adapter"
    folder = tiny_models.folder(FAMILY)
    assert record["kind"] == stored
    assert record["trainable_parameters"] == parameters.trainable_parameters(folder, small(kind))
    # Backward passes through frozen weights cost 2N a token, those of full fine-tuning 4N.
    passes = (3 if kind == "full" else 2) + (method == "dpo")
    decoder = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32 + 64) + 32
    assert record["flops"] == passes * 2 * decoder * record["tokens"]
    history = tables.read(made["history"], "history")
    if method == "dpo":
        assert history.filter(metric="loss")["value"][0] == pytest.approx(0.693147, abs=1e-5)
    choose = policies.load(folder, BASE, stored, made["milestones"], [0, 0.5, 1])
    batch = inputs()
    base, first, last = (logits(choose(label), batch) for label in (None, "0", "1"))
    assert torch.allclose(first, base, atol=1e-5) and not torch.allclose(last, base, atol=1e-4)
    name = "model.safetensors" if kind == "full" else "adapter_model.safetensors"
    start, end = (load_file(made["milestones"] / label / name) for label in ("0", "1"))
    moved = {key for key in start if not torch.equal(start[key], end[key])}
    frozen = {key for key in start if kind == "full" and "visual" in key}
    assert moved == start.keys() - frozen


def inputs() -> dict[str, torch.Tensor]:
    processor = vlm.load_processor(tiny_models.folder(FAMILY))
    return dict(vlm.encode(processor, ["Is it hateful?"], [tiny_models.picture(1)]))


@torch.no_grad()
def logits(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return vlm.project(model, vlm.hidden_states(model.eval(), **batch).last_hidden_state)


@pytest.mark.parametrize("kind", ["dora", "ia3", "full"])
def test_scoring_reads_the_trainers_policy(kind: str, study: Path, tmp_path: Path) -> None:
    made = trainer("sft", kind, study, tmp_path, learning_rate=1e-2, max_steps=2)
    made.add_callback(runs.callbacks.Milestones([0, 1], tmp_path / "saved"))
    made.train()
    stored = "full" if kind == "full" else "adapter"
    (tmp_path / "saved/2").rename(tmp_path / "saved/1")
    choose = policies.load(tiny_models.folder(FAMILY), BASE, stored, tmp_path / "saved", [0, 1])
    batch = inputs()
    assert torch.allclose(logits(choose("1"), batch), logits(made.model, batch), atol=1e-6)


def trainer(method: str, kind: str, study: Path, work: Path, **args: object):
    pairs, memes = (
        tables.read(study / "preferences.parquet", "preferences"),
        tables.read(study / "data.parquet", "data"),
    )
    rows = training_rows(pairs, memes, tiny_study.PROMPT, "hateful", "paired")
    folder = tiny_models.folder(FAMILY)
    config = training.trainer_config(method, {"gradient_checkpointing": False, **args}, work / "checkpoints", 1)
    policy = starting_policy(folder, BASE, small(kind))
    return training.trainer(config, policy, vlm.load_processor(folder), rows, small(kind))


def test_full_weights_lie_in_the_dtype_of_the_base(tmp_path: Path) -> None:
    """A base stored in bfloat16 is trained in float32, and its milestones are stored, and equal, in bfloat16."""
    folder, base = tmp_path / "base", BaseModelConfig(source="tiny", dtype="bfloat16")
    vlm.load_model(tiny_models.folder("gemma3"), "bfloat16").save_pretrained(folder)
    model = starting_policy(folder, base, small("full"))
    saving.save(model, tmp_path / "0")
    ours, theirs = load_file(tmp_path / "0/model.safetensors"), load_file(folder / "model.safetensors")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "0/config.json").read_text())["dtype"] == "bfloat16"
    assert checkpoints.stored_dtype(tmp_path / "0") == "bfloat16"


def test_full_milestones_are_full_checkpoints(train, tmp_path: Path) -> None:
    folder, made = tiny_models.folder(FAMILY), train("sft", "full", tmp_path, max_steps=1)
    external.check_full(made["milestones"] / "1", folder)
    milestone, stored = deltas.open_milestone(made["milestones"] / "1", "full"), weights.Weights(folder)
    module = weights.linears(folder, "all")[0]
    changed = milestone.update(module, stored(module))
    assert changed.shape == (32, 32) and changed.abs().max() > 1e-3


def test_ia3_update_is_pefts_merge(tmp_path: Path) -> None:
    """ΔW of the merged model in float32, layer by layer: rows of W scaled, of down_proj columns."""
    folder, torch_seed = tiny_models.folder(FAMILY), torch.Generator().manual_seed(0)
    base, model = vlm.load_model(folder), vlm.load_model(folder)
    policy = get_peft_model(model, adapters.peft_config(model, small("ia3")))
    for parameter in filter(lambda p: p.requires_grad, policy.parameters()):
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch_seed)
    saving.save(policy, tmp_path / "1")
    milestone, merged = deltas.open_milestone(tmp_path / "1", "adapter"), policy.merge_and_unload()
    modules = milestone.modules(weights.linears(folder, "all"))
    assert len(modules) == 14 and {milestone.rank(module) for module in modules} == {None}
    for module in modules:
        before, after = (m.get_submodule(module).weight.detach() for m in (base, merged))
        assert torch.allclose(milestone.update(module, before), after - before, atol=1e-7)
        assert (after - before).abs().max() > 1e-3


# --- resuming ---


class Terminate(TrainerCallback):
    """Sends this process SIGTERM in its second step."""

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("kind", "optim", "family"),
    [
        ("full", "adamw_torch", "qwen2_5_vl"),
        ("full", "galore_adamw", "llava"),
        ("qlora", "adamw_torch", "qwen2_5_vl"),
        ("dora", "adafactor", "qwen2_5_vl"),
        ("ia3", "adamw_bnb_8bit", "qwen2_5_vl"),
        ("lora", "paged_adamw_8bit", "qwen2_5_vl"),
    ],
)
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_resumed_to_the_last_bit(
    kind: str, optim: str, family: str, train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that every optimiser takes steps here. Weights of a vision-language model are stored under other names."""
    args = {"max_steps": 3, "save_steps": 100, "optim": optim, "per_device_train_batch_size": 2}
    whole = train("dpo", kind, tmp_path / "whole", family, **args)
    hooks = runs.hooks
    with monkeypatch.context() as patch:
        patch.setattr(runs, "hooks", lambda *given: [*hooks(*given), Terminate()])
        with pytest.raises(InputError, match="training was stopped at step 2 of 3"):
            train("dpo", kind, tmp_path / "cut", family, **args)
    resumed = train("dpo", kind, tmp_path / "cut", family, **args)
    file = "model.safetensors" if kind == "full" else "adapter_model.safetensors"
    expected, found, start = (
        load_file(run["milestones"] / label / file) for run, label in ((whole, "1"), (resumed, "1"), (whole, "0"))
    )
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert sum(not torch.equal(start[name], value) for name, value in expected.items()) >= len(start) / 4


# --- one step, taken in several ways ---


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize(
    "other", [{"gradient_checkpointing": True}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}]
)
def test_one_step_is_one_step(kind: str, other: dict[str, object], study: Path, tmp_path: Path) -> None:
    """With checkpointing, and in halves: the same loss and the same weights; sums in another order differ by 1e-6."""
    common = {"per_device_train_batch_size": 4, "max_steps": 1, "optim": "sgd", "learning_rate": 0.1}
    found = []
    for args in ({}, other):
        made = trainer("sft", kind, study, tmp_path / str(len(found)), **{**common, **args})
        runs.train(made)
        loss = next(entry["loss"] for entry in made.state.log_history if "loss" in entry)
        found.append((loss, [p.detach().clone() for p in made.model.parameters() if p.requires_grad]))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(found[0][1], found[1][1], strict=True))


def test_the_tower_runs_once_for_policy_and_reference(study: Path, tmp_path: Path, monkeypatch) -> None:
    made = trainer("dpo", "full", study, tmp_path, max_steps=2, per_device_train_batch_size=2)
    tower, encoded = type(vlm.bare(made.model).model), []
    original = tower.get_image_features

    def spy(*args: object, **kwargs: object) -> object:
        encoded.append(torch.is_grad_enabled())
        return original(*args, **kwargs)

    monkeypatch.setattr(tower, "get_image_features", spy)
    runs.train(made)
    assert encoded == [False, False]
    assert made.ref_model is not None and not any(p.grad is not None for p in made.ref_model.parameters())


def test_another_tower_looks_for_itself(study: Path, tmp_path: Path) -> None:
    """Full weights from elsewhere, their tower moved: DPO's reference sees the base's features, and its loss is the
    same as with every tower left to itself.
    """
    losses = []
    for shared in (True, False):
        made = trainer("dpo", "full", study, tmp_path / str(shared), max_steps=1, per_device_train_batch_size=2)
        outside = runs._outside_decoder(made.model)
        assert runs._same_pictures(made.model, made.ref_model)
        with torch.no_grad():
            for parameter in outside.values():
                parameter.mul_(1.5)
        assert outside and not runs._same_pictures(made.model, made.ref_model)
        (runs.train(made) if shared else made.train())
        losses.append(made.state.log_history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6) and abs(losses[0] - 0.693147) > 1e-5


# --- where another run ended ---


# What is 0 where the policy is the reference.
APART = {"dpo": "rewards/margins", "kto": "rewards/margins", "grpo": "kl", "rloo": "kl"}
FIRST_LOSS = {"dpo": 0.6931472, "kto": 0.5}


@pytest.fixture(scope="module")
def ended(study: Path, tmp_path_factory: pytest.TempPathFactory):
    """Milestones of a short SFT run of an adapter's kind, made once."""

    @functools.cache
    def run(kind: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tiny_study, "MATCHED", tiny_study.MATCHED.model_copy(update={"adapter": small(kind)}))
            return tiny_study.train("sft", study, tmp_path_factory.mktemp("sft"), max_steps=3)["milestones"]

    return run


@pytest.mark.parametrize(
    ("kind", "method"),
    [("lora", "dpo"), ("ia3", "dpo"), ("full", "dpo"), ("qlora", "dpo"), ("ia3", "grpo"), ("qlora", "grpo"),
     ("full", "grpo"), ("prefix", "grpo"), ("ia3", "kto"), ("ia3", "rloo")],
)  # fmt: skip
@pytest.mark.parametrize("reference", ["base", "parent"])
def test_a_run_that_begins_at_anothers_end(
    kind: str, method: str, reference: str, study: Path, ended, tmp_path: Path
) -> None:
    """It is that end to the last bit: nothing lies between it and its parent, what that learnt between it and the base.

    All that trains moves then, and the reference is not saved.
    """
    made = begun(method, kind, study, tmp_path, ended(kind), reference)
    assert trainable(made.model) == parameters.trainable_parameters(tiny_models.folder(FAMILY), small(kind))
    saving.save(made.model, tmp_path / "0")
    runs.train(made)
    saving.save(made.model, tmp_path / "1")
    assert not [path for path in (tmp_path / "1").iterdir() if path.is_dir()]
    name = "model.safetensors" if kind == "full" else "adapter_model.safetensors"
    given, start, end = (load_file(folder / name) for folder in (ended(kind) / "1", tmp_path / "0", tmp_path / "1"))
    assert given.keys() == start.keys() and all(torch.equal(given[key], start[key]) for key in given)
    assert all("visual" in key for key in start if torch.equal(start[key], end[key]))
    log = made.state.log_history[0]
    assert (abs(log[APART[method]]) < 1e-7) == (reference == "parent")
    if reference == "parent" and method in FIRST_LOSS:
        assert log["loss"] == pytest.approx(FIRST_LOSS[method], abs=1e-6)


def begun(method: str, kind: str, study: Path, work: Path, parent: Path, reference: str):
    """The trainer of one step of `method` that begins at the end of `parent`."""
    pairs, memes = (
        tables.read(study / "preferences.parquet", "preferences"),
        tables.read(study / "data.parquet", "data"),
    )
    rows = training_rows(pairs, memes, tiny_study.PROMPT, "hateful", "paired")
    folder, args = tiny_models.folder(FAMILY), {"per_device_train_batch_size": 4, "max_steps": 1, "learning_rate": 1e-2}
    drawing = {"num_generations": 2, "max_completion_length": 8, "beta": 0.1} if method in ON_POLICY else {}
    config = training.trainer_config(method, {**args, **drawing}, work / "checkpoints", 1)
    graders = reward_functions(tiny_study.REWARDS, tiny_study.PROMPT) if method in ON_POLICY else None
    policy = starting_policy(folder, BASE, small(kind), parent, reference)
    given = (config, policy, vlm.load_processor(folder), rows, small(kind), graders)
    return training.trainer(*given, reference=reference)


@pytest.mark.parametrize("reference", ["base", "parent"])
@pytest.mark.parametrize("method", APART)
def test_the_scripts_keep_to_the_reference(method: str, reference: str, study: Path, ended, tmp_path: Path) -> None:
    """At the first step nothing lies between the policy and its parent alone."""
    where = {**tiny_study.inputs(study), **tiny_study.outputs(tmp_path), "work": tmp_path / "work", "threads": 1}
    settings = tiny_study.settings(method, max_steps=1, **({"beta": 0.1} if method in ON_POLICY else {}))
    settings["method"] = settings["method"].model_copy(update={"start": "sft", "reference": reference})
    tiny_study.script(rule_of(settings["method"]))(**where, **settings, start=ended("lora"))
    history = tables.read(tmp_path / "history.parquet", "history")
    assert (abs(history.filter(metric=APART[method])["value"][0]) < 1e-7) == (reference == "parent")
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["loss_reference"] == (record["starts_at"] if reference == "parent" else "base")


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        ("lora", {"r": 8, "alpha": 8}, "(r 4, not 8);"),
        ("lora", {"alpha": 32}, "(alpha 8, not 32);"),
        ("lora", {"dropout": 0.1}, "(dropout 0.0, not 0.1);"),
        ("lora", {"kind": "rslora"}, "(kind lora, not rslora);"),
        ("lora", {"kind": "ia3"}, "(kind lora, not ia3);"),
        ("lora", {"layers": "attention"}, "(layers 14, not 8: "),
        ("prefix", {"tokens": 3}, "(tokens 4, not 3);"),
        ("prefix", {"kind": "prompt"}, "(kind prefix, not prompt);"),
    ],
)
def test_a_start_with_other_settings(kind: str, changed: dict, said: str, train, tmp_path: Path) -> None:
    """A checkpoint trained elsewhere may have any; what it has is not what the method's adapter says."""
    tokens = {"tokens": 4} if kind == "prefix" else {}
    model, parent = vlm.load_model(tiny_models.folder(FAMILY)), tmp_path / "milestones"
    policy = soft_prompts.fresh(model, small(kind, **tokens), 1) if tokens else None
    policy = policy or get_peft_model(model, adapters.peft_config(model, small(kind)))
    saving.save(policy, parent / "1")
    starting_policy(tiny_models.folder(FAMILY), BASE, small(kind, **tokens), parent)
    with pytest.raises(InputError, match=re.escape(said)) as raised:
        other = Adapter(**{"kind": kind, "r": 4, **tokens, **changed})
        starting_policy(tiny_models.folder(FAMILY), BASE, other, parent)
    assert "\n" not in str(raised.value)


def test_a_start_of_another_kind(train, tmp_path: Path) -> None:
    parent = train("sft", "full", tmp_path, max_steps=1)["milestones"]
    with pytest.raises(InputError, match="is full weights; set adapter.kind to fit"):
        starting_policy(tiny_models.folder(FAMILY), BASE, small("lora"), parent)


# --- what is refused ---


def test_kernels_that_are_not_wanted_are_not_asked_for() -> None:
    """Of what bitsandbytes says while it is imported, that one line alone is dropped."""
    said, logger = [], logging.getLogger("bitsandbytes.backends.cpu.ops")
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(handler)
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "No module named 'kernels'")
    logger.warning("something else")
    logger.removeHandler(handler)
    assert said == ["something else"]


@pytest.mark.parametrize(
    ("adapter", "args", "said"),
    [
        ({"options": {"init_lora_weights": "pissa"}}, {}, "'pissa': changes the base weights, .* reference of DPO"),
        ({"options": {"init_lora_weights": "olora"}}, {}, "'olora': changes the base weights"),
        ({"options": {"init_lora_weights": "loftq"}}, {}, "'loftq': changes the base weights"),
        ({"options": {"init_lora_weights": "eva"}}, {}, "'eva': is drawn from data"),
        ({"options": {"init_lora_weights": False}}, {}, "False: the policy would not start at the base"),
        ({"kind": "ia3", "options": {"init_ia3_weights": False}}, {}, "would not start at the base"),
        ({"kind": "full", "options": {"bias": "all"}}, {}, "options.bias: full weights have no adapter"),
        ({"kind": "full", "layers": "attention"}, {}, "layers 'attention': full weights train in all layers"),
        ({"layers": "qvhigh"}, {}, "no preset 'qvhigh'; .* is qv_high"),
        ({}, {"packing": True}, "packing: TRL cannot for vision data .rows with pictures are not packed.; remove it"),
        ({}, {"padding_free": True}, "padding_free: TRL cannot for vision data"),
        ({}, {"optim": "galore_adamw"}, "galore_adamw projects the gradients of whole weight matrices, of which lora"),
        ({"kind": "full"}, {"optim": "galore_adamw_layerwise"}, "no checkpoint holds the state"),
        ({"kind": "full"}, {"optim": "apollo_adamw"}, "apollo_adamw needs the package apollo_torch"),
    ],
)
def test_what_breaks_an_invariant_is_refused(adapter: dict, args: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        modes.check(Adapter(**adapter), args)
    assert "\n" not in str(raised.value)


def test_galore_projects_the_layers_that_are_named() -> None:
    modes.check(Adapter(kind="full", layers="attention"), {"optim": "galore_adamw"})


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="qlora needs the package bitsandbytes"):
        modes.check(Adapter(kind="qlora"), {})
    with pytest.raises(InputError, match="adamw_bnb_8bit needs the package bitsandbytes"):
        modes.check(Adapter(), {"optim": "adamw_bnb_8bit"})


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("rslora", {"use_rslora": False}, "use_rslora: is set by the study itself"),
        ("ia3", {"target_modules": "all-linear"}, "target_modules: is set by the study itself"),
        ("ia3", {"lora_alpha": 3}, "peft.IA3Config has no such argument"),
    ],
)
def test_options_that_are_none(kind: str, options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        adapters.peft_config(vlm.load_model(tiny_models.folder(FAMILY)), small(kind, options=options))


def test_gaussian_starts_at_the_base() -> None:
    given = small("lora", options={"init_lora_weights": "gaussian"})
    modes.check(given, {"optim": "adafactor"})
    model, batch = vlm.load_model(tiny_models.folder(FAMILY)), inputs()
    before = logits(model, batch)
    policy = get_peft_model(model, adapters.peft_config(model, given))
    assert torch.equal(logits(policy, batch), before) and isinstance(policy, PeftModel)
