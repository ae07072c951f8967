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

from peft import PeftModel
from transformers import PreTrainedModel

from memedynamics import external, soft_prompts
from memedynamics.adapter_files import is_soft
from memedynamics.config import Adapter, BaseModelConfig
from memedynamics.errors import InputError
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
    whose adapter trains. Full weights come trainable, and name as their origin the policy that a loss compares with:
    the `parent` in `start`, else the base; TRL loads it from there. Raises InputError where `start` is of another kind.
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
    load = soft_prompts.load_trainable if is_soft(end) else _load_trainable
    return _named(load(model, end), start)


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
