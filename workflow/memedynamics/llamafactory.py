"""LLaMA-Factory's arguments for a method of the study, so that its backend differs from TRL's in the trainer alone.

1. `training` and `methods.<name>.args` keep TRL's names. Each has in LLaMA-Factory the value that TRL's config class
   gives it, defaults included (learning rate, scheduler, logging), under LLaMA-Factory's name where it has another.
2. A name that TRL's class does not know is LLaMA-Factory's own and passes through; it names unknown ones itself.
3. The adapter is made here, from the same seed as in every method, and handed over: nothing of it is translated.
4. Pictures keep the size that the study's processor gives them, and nothing is cut.
"""

from collections.abc import Iterable
from dataclasses import fields
from enum import Enum
from pathlib import Path

from transformers import TrainingArguments

from memedynamics.errors import InputError
from memedynamics.methods import TrainedMethod
from memedynamics.modes import check_handed_over, check_own
from memedynamics.sections import BaseModelConfig
from memedynamics.trainer_arguments import CONFIGS, Config

TEMPLATE = "memedynamics"
DATASETS = {"sft": "sft", "dpo": "preferences"}
ATTENTION = {"sdpa": "sdpa", "eager": "disabled", "flash_attention_2": "fa2"}
# TRL's name: LLaMA-Factory's, of arguments that belong to the objective.
OBJECTIVE = {"beta": "pref_beta", "label_smoothing": "dpo_label_smoothing"}
LOSSES = ("sigmoid", "hinge")
# Shared with TRL by name, yet LLaMA-Factory goes its own way.
APART = ("output_dir", "fsdp", "fsdp_config", "gradient_checkpointing", "gradient_checkpointing_kwargs",
         "activation_checkpointing", "activation_checkpointing_kwargs", "dataloader_in_order",
         "dataloader_multiprocessing_context", "report_to")  # fmt: skip
UNLIMITED = 1 << 40


def split(kind: str, args: dict[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """`args` by whose they are: those TRL's config class of `kind` knows, and LLaMA-Factory's own.

    Raises InputError on one of LLaMA-Factory's own that the study sets itself.
    """
    known = {field.name for field in fields(CONFIGS[kind]) if field.init}
    own = {name: value for name, value in args.items() if name not in known}
    check_own(own)
    return {name: value for name, value in args.items() if name in known}, own


def check(method: TrainedMethod, adapter_kind: str, base: BaseModelConfig, stored: str | None) -> None:
    """Raise InputError where LLaMA-Factory cannot train `method` as the study means it.

    `stored` is the dtype of the base model's files, which LLaMA-Factory loads as they are.
    """
    check_handed_over(method, adapter_kind, base)
    if stored is not None and stored != base.dtype:
        raise InputError(
            f"base_model.dtype: {base.dtype}, but the model's files are in {stored}, which LLaMA-Factory loads as they "
            f"are; set dtype: {stored}, or use backend trl"
        )


def arguments(config: Config, given: Iterable[str]) -> dict[str, object]:
    """What TRL's `config` says, as LLaMA-Factory's arguments; those at transformers' own default are left out.

    Raises InputError where one of the names `given` in the study has no counterpart.
    """
    standard = TrainingArguments(output_dir=config.output_dir, report_to="none")
    shared = [field.name for field in fields(TrainingArguments) if field.init and field.name not in APART]
    changed = [name for name in shared if getattr(config, name) != getattr(standard, name)]
    objective = _objective(config)
    for name in given:
        if name not in {*shared, *objective, "gradient_checkpointing", "report_to"}:
            raise InputError(f"trainer argument {name}: LLaMA-Factory has no counterpart; remove it or use backend trl")
    return {
        **{name: _plain(getattr(config, name)) for name in changed},
        **{ours: value for ours, value in objective.values() if ours},
        "disable_gradient_checkpointing": not config.gradient_checkpointing,
        "report_to": config.report_to or "none",
    }


def _objective(config: Config) -> dict[str, tuple[str | None, object]]:
    """By TRL's name of an argument of the loss: LLaMA-Factory's name, none where it has but one way, and the value."""
    if config.max_length is not None:
        raise InputError("trainer argument max_length: nothing is cut with pictures; remove it")
    loss, same = config.loss_type, {"max_length": (None, None)}
    if type(config) is CONFIGS["sft"]:
        if loss != "nll":
            raise InputError(f"trainer argument loss_type: {loss}: LLaMA-Factory has nll; remove it or use backend trl")
        return {**same, "loss_type": (None, loss)}
    (loss,) = loss if isinstance(loss, list) and len(loss) == 1 else (loss,)
    if loss not in LOSSES:
        raise InputError(f"trainer argument loss_type: {loss}: LLaMA-Factory has {', '.join(LOSSES)}; use backend trl")
    if not config.disable_dropout:
        raise InputError("trainer argument disable_dropout: LLaMA-Factory's DPO always disables dropout; remove it")
    named = {theirs: (ours, getattr(config, theirs)) for theirs, ours in OBJECTIVE.items()}
    return {**same, **named, "loss_type": ("pref_loss", loss), "disable_dropout": (None, True)}


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else value


def fixed(
    kind: str, model: Path, adapter: Path, base: BaseModelConfig, data: Path, output: Path, parent: Path | None = None
) -> dict[str, object]:
    """The arguments that follow from the study; with `parent`, an adapter, DPO compares with it instead of the base."""
    reference = {"ref_model": str(model), "ref_model_adapters": str(parent)} if parent else {}
    return {
        "stage": kind,
        "do_train": True,
        "finetuning_type": "lora",
        "model_name_or_path": str(model),
        "adapter_name_or_path": str(adapter),
        "trust_remote_code": False,
        "flash_attn": ATTENTION.get(base.attn_implementation, "auto"),
        "template": TEMPLATE,
        "dataset": DATASETS[kind],
        "dataset_dir": str(data),
        "overwrite_cache": True,
        "cutoff_len": 1 << 20,
        "image_max_pixels": UNLIMITED,
        "image_min_pixels": 1,
        "include_num_input_tokens_seen": "non_padding",
        "output_dir": str(output),
        **reference,
    }
