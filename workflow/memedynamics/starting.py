"""The policy as a training finds it: the base model, or where another run ended.

1. Full fine-tuning trains all weights but those of vision tower and projector: the text decoder with its embeddings,
   and the output head, which is tied to them in some families and apart in others. The pictures' features are thus the
   base's in every run.
2. Its weights are float32 whatever the study's dtype, as an adapter's are: in bfloat16 a step of Adam below 1/256 of a
   weight is rounded away. On a GPU the forward and backward passes run in bfloat16 (autocast) where the study does.
3. QLoRA's base is in four bits while it trains (module `quantised`); its adapter is scored on the base itself.
"""

from pathlib import Path
from typing import Literal

from peft import PeftConfig, PeftModel
from safetensors import safe_open
from transformers import PreTrainedModel

from memedynamics import external, soft_prompts
from memedynamics.adapter_files import ADAPTER, is_soft
from memedynamics.adapters import MARKS, pattern, text_linears
from memedynamics.config import Adapter, BaseModelConfig
from memedynamics.errors import InputError
from memedynamics.methods import LORA, SOFT
from memedynamics.quantised import load_quantised
from memedynamics.vlm import load_model

# Kinds that the trainer puts on the base model as it is.
PUT_ON = ("lora", "rslora", "dora", "ia3", "prompt", "prefix")


def starting_policy(
    folder: Path,
    base: BaseModelConfig,
    adapter: Adapter,
    start: Path | None = None,
    reference: Literal["base", "parent"] | None = None,
) -> PreTrainedModel | PeftModel:
    """The model in `folder` as `adapter` trains it; with `start`, milestones of another run, as that run ended.

    A fresh LoRA or IA³ is put on by the trainer itself, after seeding. What has learnt already comes as a PeftModel
    whose adapter trains, with the settings of `adapter`. Full weights come trainable, and name as their origin the
    policy that a loss compares with: the `parent` in `start`, else the base; TRL loads it from there. Raises InputError
    where `start` is of another kind, or its adapter of other settings.
    """
    end = start / "1" if start else None
    full = adapter.kind == "full"
    if end and (external.kind(end) == "full") != full:
        raise InputError(f"{end}: is {external.kind(end)} weights; set adapter.kind to fit what the run begins at")
    if full:
        model = load_model(end or folder, "float32", base.attn_implementation)
        model.config._name_or_path = str(end if reference == "parent" else folder)
        return _named(unfrozen(model), start)
    if adapter.kind == "qlora":
        model = load_quantised(folder, base)
    else:
        model = load_model(folder, base.dtype, base.attn_implementation)
    if end is None:
        return model
    _check_settings(end, adapter, model)
    load = soft_prompts.load_trainable if is_soft(end) else _load_trainable
    return _named(load(model, end), start)


def _check_settings(end: Path, adapter: Adapter, model: PreTrainedModel) -> None:
    """Raise InputError where the adapter in `end`, perhaps trained elsewhere, is not what `adapter` is on `model`."""
    config = PeftConfig.from_pretrained(end)
    theirs, ours = _settings(config), _wanted(adapter)
    differ = [f"{key} {theirs.get(key)}, not {value}" for key, value in ours.items() if theirs.get(key) != value]
    if adapter.kind not in SOFT:
        layers = text_linears(model, adapter.layers)
        # One of this project's has the same words for them.
        same = config.target_modules == pattern(layers, text_linears(model))
        if not same and (found := _adapted(end)) != set(layers):
            differ.append(f"layers {len(found)}, not {len(layers)}: {min(found ^ set(layers))} is in one alone")
    if differ:
        raise InputError(
            f"{end}: the run begins at an adapter of other settings than its own ({'; '.join(differ)}); set these keys "
            "of adapter to fit"
        )


def _settings(config: PeftConfig) -> dict[str, object]:
    """The settings of a saved adapter under the names of the study file."""
    kinds = {"IA3": "ia3", "PROMPT_TUNING": "prompt", "PREFIX_TUNING": "prefix"}
    marks = [kind for kind in MARKS if getattr(config, f"use_{kind}", False)]
    tuned = {"r": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "tokens": "num_virtual_tokens"}
    found = {key: getattr(config, name, None) for key, name in tuned.items()}
    return {"kind": kinds.get(config.peft_type, " ".join(marks) or "lora"), **found}


def _wanted(adapter: Adapter) -> dict[str, object]:
    # QLoRA's factors are LoRA's.
    kind = {"kind": "lora" if adapter.kind == "qlora" else adapter.kind}
    if adapter.kind in LORA:
        return {**kind, "r": adapter.r, "alpha": adapter.alpha or 2 * adapter.r, "dropout": adapter.dropout}
    return {**kind, "tokens": adapter.tokens} if adapter.kind in SOFT else kind


def _adapted(end: Path) -> set[str]:
    """Names of the layers that the saved factors belong to."""
    with safe_open(end / ADAPTER, "pt") as weights:
        names = (name.removeprefix("base_model.model.") for name in weights.keys())  # noqa: SIM118
        return {name.partition(".lora_")[0].partition(".ia3_")[0] for name in names}


def _load_trainable(model: PreTrainedModel, folder: Path) -> PeftModel:
    return PeftModel.from_pretrained(model, folder, is_trainable=True)


def _named(policy: PreTrainedModel | PeftModel, start: Path | None) -> PreTrainedModel | PeftModel:
    # The method of runs/{method}/seed{seed}/milestones, for run.json.
    if start:
        policy.starts_at = start.parents[1].name
    return policy


def unfrozen(model: PreTrainedModel) -> PreTrainedModel:
    """`model` with all weights trainable but those of vision tower and projector."""
    for part in (model.get_decoder(), model.get_output_embeddings()):
        part.requires_grad_(True)
    return model
