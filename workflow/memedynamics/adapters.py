"""Adapters on the text decoder: where they go, how milestones are loaded, which one is on."""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from peft import IA3Config, LoraConfig, PeftConfig, PeftModel
from torch import nn
from transformers import PreTrainedModel

from memedynamics import soft_prompts
from memedynamics.adapter_files import is_soft
from memedynamics.config import Adapter
from memedynamics.errors import InputError
from memedynamics.layers import FEEDFORWARD, chosen
from memedynamics.methods import LORA
from memedynamics.vlm import bare

CONFIGS = {"ia3": IA3Config, **dict.fromkeys(LORA, LoraConfig)}
# What makes the kind what it is, in the names of PEFT's config class.
MARKS = {"rslora": {"use_rslora": True}, "dora": {"use_dora": True}}


def text_linears(model: PreTrainedModel, layers: str = "all") -> list[str]:
    """Full names of the text decoder's linear layers that `layers` means; never tower, projector, head.

    `layers` is a preset or a regular expression (module `layers`). Raises InputError where it means none.
    """
    inside = {id(module) for module in bare(model).get_decoder().modules()}
    head = bare(model).get_output_embeddings()
    linears = {name: m for name, m in bare(model).named_modules() if isinstance(m, nn.Linear) and m is not head}
    names = [name for name, module in linears.items() if id(module) in inside]
    assert names and not any(part in name for name in names for part in ("vision", "visual", "projector", "connector"))
    return chosen(names, layers)


def peft_config(model: PreTrainedModel, adapter: Adapter) -> PeftConfig:
    """PEFT's config of a LoRA kind or IA³ for this model; raises InputError on options PEFT does not know.

    IA³ (Liu et al., 2205.05638) rescales what the chosen layers give out, and what down_proj takes in. The paper's own
    choice is `layers: .*\\.(k_proj|v_proj|down_proj)`.
    """
    every = text_linears(model)
    names = chosen(every, adapter.layers)
    given = {"task_type": "CAUSAL_LM", "target_modules": pattern(names, every), **MARKS.get(adapter.kind, {})}
    if adapter.kind == "ia3":
        given["feedforward_modules"] = FEEDFORWARD
    else:
        given |= {"r": adapter.r, "lora_alpha": adapter.alpha or 2 * adapter.r, "lora_dropout": adapter.dropout}
    _check_options(adapter, given)
    return CONFIGS[adapter.kind](**given, **adapter.options)


def _check_options(adapter: Adapter, given: Mapping[str, object]) -> None:
    kind = CONFIGS[adapter.kind]
    for name in adapter.options:
        # bias and modules_to_save could reach into the vision tower.
        if name in (*given, "bias", "modules_to_save"):
            raise InputError(f"adapter.options.{name}: is set by the study itself; remove it")
        if name not in kind.__dataclass_fields__:
            raise InputError(f"adapter.options.{name}: peft.{kind.__name__} has no such argument; remove it")


def pattern(names: Sequence[str], every: Sequence[str]) -> str:
    """One regular expression that matches exactly the modules `names` among `every`.

    PEFT writes a list in an order that changes from run to run.
    """
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(re.sub(r"\\\.\d+(?=\\\.)", r"\\.\\d+", re.escape(name)), []).append(name)
    alternatives = []
    for kind, members in sorted(kinds.items()):
        alone = len([name for name in every if re.fullmatch(kind, name)]) == len(members)
        alternatives += [kind] if alone else map(re.escape, members)
    return "|".join(alternatives)


def load_adapters(model: PreTrainedModel, folders: Mapping[str, Path]) -> PeftModel:
    """`model` with one frozen adapter per milestone label; `activate` chooses."""
    (first, folder), *others = folders.items()
    load = soft_prompts.load if is_soft(folder) else PeftModel.from_pretrained
    policy = load(model, folder, _name(first))
    for label, folder in others:
        policy.load_adapter(folder, adapter_name=_name(label))
    return policy.requires_grad_(False).eval()


def activate(model: PreTrainedModel | PeftModel, label: str | None) -> None:
    """Switch to the milestone `label`, or to the reference π0 with None; a bare model is π0 already."""
    if not isinstance(model, PeftModel):
        if label is not None:
            raise ValueError(f"a bare model has no milestone {label}")
    elif isinstance(model, soft_prompts.SoftPromptModel):
        model.switch(None if label is None else _name(label))
    elif label is None:
        model.base_model.disable_adapter_layers()
    else:
        model.base_model.enable_adapter_layers()
        model.set_adapter(_name(label), inference_mode=True)


def off(model: PreTrainedModel | PeftModel) -> AbstractContextManager:
    """Inside, `model` is what its adapter was put on; a bare model is that already."""
    return model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()


def _name(label: str) -> str:
    # Module names cannot hold dots.
    return f"milestone_{label.replace('.', '_')}"
