"""Adapters on the text decoder: where they go, how milestones are loaded, which one is on."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from peft import LoraConfig, PeftModel
from torch import nn
from transformers import PreTrainedModel

from memedynamics.config import Adapter
from memedynamics.errors import InputError
from memedynamics.vlm import bare

# Set by the study's own keys; bias and modules_to_save could reach into the vision tower.
RESERVED = ("r", "lora_alpha", "lora_dropout", "target_modules", "task_type", "bias", "modules_to_save")


def text_linears(model: PreTrainedModel, layers: Literal["all", "attention"]) -> list[str]:
    """Full names of the linear layers of the text decoder: all, or those of attention; never tower, projector, head."""
    inside = {id(module) for module in bare(model).get_decoder().modules()}
    head = bare(model).get_output_embeddings()
    linears = {name: m for name, m in bare(model).named_modules() if isinstance(m, nn.Linear) and m is not head}
    names = [name for name, module in linears.items() if id(module) in inside]
    if layers == "attention":
        names = [name for name in names if "attn" in name.split(".")[-2]]
    assert names and not any(part in name for name in names for part in ("vision", "visual", "projector", "connector"))
    return names


def lora_config(model: PreTrainedModel, adapter: Adapter) -> LoraConfig:
    """PEFT's config of the study's adapter for this model; raises InputError on options PEFT does not know."""
    for name in adapter.options:
        if name in RESERVED:
            raise InputError(f"adapter.options.{name}: is set by the study itself; remove it")
        if name not in LoraConfig.__dataclass_fields__:
            raise InputError(f"adapter.options.{name}: peft.LoraConfig has no such argument; remove it")
    return LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha or 2 * adapter.r,
        lora_dropout=adapter.dropout,
        target_modules=_pattern(text_linears(model, adapter.layers)),
        task_type="CAUSAL_LM",
        **adapter.options,
    )


def _pattern(names: list[str]) -> str:
    # One pattern that matches exactly these modules: PEFT writes a list in an order that changes from run to run.
    kinds = sorted({re.sub(r"\\\.\d+(?=\\\.)", r"\\.\\d+", re.escape(name)) for name in names})
    return "|".join(kinds)


def load_adapters(model: PreTrainedModel, folders: Mapping[str, Path]) -> PeftModel:
    """`model` with one frozen adapter per milestone label; `activate` chooses."""
    (first, folder), *others = folders.items()
    policy = PeftModel.from_pretrained(model, folder, adapter_name=_name(first))
    for label, folder in others:
        policy.load_adapter(folder, adapter_name=_name(label))
    return policy.requires_grad_(False).eval()


def activate(model: PreTrainedModel | PeftModel, label: str | None) -> None:
    """Switch to the milestone `label`, or to the reference π0 with None; a bare model is π0 already."""
    if not isinstance(model, PeftModel):
        if label is not None:
            raise ValueError(f"a bare model has no milestone {label}")
    elif label is None:
        model.base_model.disable_adapter_layers()
    else:
        model.base_model.enable_adapter_layers()
        model.set_adapter(_name(label), inference_mode=True)


def _name(label: str) -> str:
    # Module names cannot hold dots.
    return f"milestone_{label.replace('.', '_')}"
