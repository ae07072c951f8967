"""The methods under matched conditions: the same prompts, adapter, seed, prompt bytes and pictures.

TRL trains; this module builds its configs and trainers. Where the defaults differ from TRL's:
1. Prompts of SFT, RFT, DPO and KTO come rendered (module `examples`). RFT is SFT on other responses.
2. GRPO and its variants are the papers' (module `grpo_variants`), and RLOO draws as many responses to a prompt as
   GRPO does by default. (TRL: GRPO with loss_type dapo and beta 0, RLOO with two responses.)
3. Completions of GRPO, RLOO and EM are sampled exactly as in `sample_base`: its temperature and length, no truncation.
4. EM is GRPO's loop with a loss of its own (module `entropy_minimisation`): no reference, fresh responses every step.
5. Nothing is cut (max_length), every step is logged, no mixed precision unless the base model is in bfloat16 on a GPU.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Literal

import polars as pl
import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedModel, PrinterCallback, ProcessorMixin, Trainer, TrainerCallback
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

from memedynamics import job, processes, soft_prompts
from memedynamics.adapters import pattern, peft_config, text_linears
from memedynamics.config import Adapter, Sampling
from memedynamics.errors import InputError
from memedynamics.examples import dataset, end_token
from memedynamics.grpo_variants import arguments
from memedynamics.methods import GRPO, ON_POLICY, SOFT
from memedynamics.modes import PROJECTED
from memedynamics.rewards import Reward
from memedynamics.shares import UNITS, shared
from memedynamics.trainer_arguments import CONFIGS, DRAWING, Config, Kind, check_groups, check_halves, checked
from memedynamics.vlm import bare

EXAMPLES = {SFTConfig: "sft", DPOConfig: "dpo", KTOConfig: "kto", GRPOConfig: "grpo", RLOOConfig: "grpo"}
TRAINERS = {SFTConfig: SFTTrainer, DPOConfig: DPOTrainer, KTOConfig: KTOTrainer, RLOOConfig: RLOOTrainer}
OURS: dict[str, object] = {"logging_steps": 1, "save_steps": 0.1, "save_total_limit": 2, "report_to": "none"}
DEFAULTS: dict[str, dict[str, object]] = {
    "sft": {"max_length": None},
    "rft": {"max_length": None},
    "dpo": {"max_length": None},
    "kto": {"max_length": None},
    "rloo": {"num_generations": 8},
    **{kind: arguments(kind) for kind in GRPO},
    "em": {"beta": 0.0},
    # Gradient checkpointing as in TRL's trainers.
    "reward_model": {"gradient_checkpointing": True, "remove_unused_columns": False},
}


def defaults() -> dict[str, dict[str, object]]:
    """By kind, every trainer argument's value where neither `training` nor a method sets it."""
    own = {kind: {field.name: field.default for field in fields(config)} for kind, config in CONFIGS.items()}
    return {kind: {**own[kind], **OURS, **DEFAULTS[kind]} for kind in CONFIGS}


def check_args(kind: Kind, args: dict[str, object]) -> None:
    """Check trainer arguments (`training` merged with `methods.<name>.args`) against TRL's config class of `kind`.

    Raises InputError naming the argument, with the nearest valid name, or what TRL says of its value.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer_config(kind, args, Path(folder))


def trainer_config(
    kind: Kind,
    args: dict[str, object],
    folder: Path,
    seed: int = 0,
    dtype: str = "float32",
    sampling: Sampling | None = None,
    weights: dict[str, float] | None = None,
) -> Config:
    """TRL's config of a run whose resumable state lies in `folder`; `args` override the study's defaults.

    Of several processes that share the run each takes its part of the batch (module `shares`).
    `sampling` and `weights` (rewards by name) matter to GRPO, RLOO and EM alone. Raises InputError as `check_args`.
    """
    args = checked(kind, args)
    gpu = torch.cuda.is_available()
    given = {
        **OURS,
        "bf16": gpu and dtype == "bfloat16",
        "dataloader_pin_memory": gpu,
        "use_cpu": job.processes() > 1 and not gpu,  # where it is not said, Accelerate shares nothing on a CPU
        **DEFAULTS[kind],
        **(_sampling(sampling) if kind in ON_POLICY and sampling else {}),
        **args,
        "output_dir": str(folder),
        "seed": seed,
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,
    }
    if kind in ON_POLICY:
        check_groups(given)
        given["reward_weights"] = list(weights.values()) if weights else None
    if kind == "kto":
        check_halves(given)
    given = shared(given, job.processes(), UNITS.get(kind, 1))
    try:
        return CONFIGS[kind](**given)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"trainer arguments of a {kind} method: {' '.join(str(error).split())}") from error


def _sampling(sampling: Sampling) -> dict[str, object]:
    return {
        "temperature": sampling.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "max_completion_length": sampling.max_new_tokens,
    }


def trainer(
    config: Config,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    rows: pl.DataFrame,
    adapter: Adapter,
    rewards: list[Reward] | None = None,
    hooks: list[TrainerCallback] | None = None,
    on_policy: Callable[..., GRPOTrainer] = GRPOTrainer,
    reference: Literal["base", "parent"] | None = None,
) -> Trainer:
    """TRL's trainer for `config` on `rows` (examples.training_rows) of a `model` from `starting.starting_policy`.

    An adapter that the model does not have yet is put on. `reference` is what the loss of a run that begins at
    another's end compares with.

    `rewards` grade the responses of GRPO, RLOO and EM; `on_policy` is GRPO's trainer or EM's. Raises InputError when
    there are too few prompts for one of their batches.
    """
    _project(config, model, adapter.layers)
    if adapter.kind in SOFT and not isinstance(model, PeftModel):
        model = soft_prompts.fresh(model, adapter, config.seed)
    common = {
        "model": model,
        "args": config,
        "train_dataset": dataset(EXAMPLES[type(config)], rows, processor, end_token(model, processor), config.seed),
        "processing_class": processor,
        "peft_config": None if bare(model) is not model or adapter.kind == "full" else peft_config(model, adapter),
        "callbacks": hooks,
    }
    kind = on_policy if isinstance(config, GRPOConfig) else TRAINERS[type(config)]
    if isinstance(config, DRAWING):
        _check_batch(config, len(rows))
        common["reward_funcs"] = rewards
    begun = _adapter(model) if isinstance(model, PeftModel) else None
    made = kind(**common)
    if processes.sharding() and not made.is_fsdp_enabled:
        raise InputError("launch.config: shards (FSDP) need GPUs, of which this machine has none; use ddp.yaml")
    made.remove_callback(PrinterCallback)
    _in_float32(made.model)
    if begun is not None:
        _begin(made.model, begun, reference)
    _check_trained(made.model)
    made.loss_reference = loss_reference(config, made.model, reference)
    return made


def _check_batch(config: Config, prompts: int) -> None:
    needed = config.generation_batch_size // config.num_generations
    if prompts < needed:
        raise InputError(
            f"training: {prompts} prompts, but one generation batch takes {needed} (per_device_train_batch_size "
            f"over num_generations); make it smaller"
        )


def loss_reference(
    config: Config, policy: PreTrainedModel | PeftModel, reference: Literal["base", "parent"] | None = None
) -> str | None:
    """What the loss compares `policy` with: base, the method it began at, its own start (virtual tokens), or nothing.

    Nothing where the loss has no reference (SFT, EM), or gives it no weight (β = 0).
    """
    if not getattr(config, "beta", 0):
        return None
    return "base" if reference == "base" else getattr(policy, "starts_at", "base")


def _in_float32(model: PreTrainedModel | PeftModel) -> None:
    # TRL rounds the adapters of a quantised model to bfloat16, where small steps are lost and from which a resumed run
    # does not come back. All other adapters are float32.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _adapter(policy: PeftModel) -> dict[str, torch.Tensor]:
    state = get_peft_model_state_dict(policy, adapter_name="default", save_embedding_layers=False)
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _begin(policy: PeftModel, begun: dict[str, torch.Tensor], reference: Literal["base", "parent"] | None) -> None:
    """Put what an adapter had learnt, `begun`, where training begins, and into the policy that a loss compares with.

    TRL copies it into an adapter "ref" by names that IA³ does not have, so that its reference stays the base; and it
    rounds that of a quantised model. Against the base there is no such copy: the reference is the model with adapters
    off.
    """
    if reference == "base" and "ref" in policy.peft_config:
        policy.delete_adapter("ref")
    for name in policy.peft_config:
        set_peft_model_state_dict(policy, begun, adapter_name=name)


def _project(config: Config, model: PreTrainedModel, layers: str) -> None:
    """Name the layers whose gradients GaLore or APOLLO projects, where the study does not, and let them be resumed."""
    if not config.optim.startswith(PROJECTED):
        return
    if not config.optim_target_modules:
        config.optim_target_modules = pattern(text_linears(model, layers), text_linears(model))
    if config.optim.startswith("galore"):
        from galore_torch.galore_projector import GaLoreProjector

        # It lies in the optimiser's state, and checkpoints are read without running what they name.
        torch.serialization.add_safe_globals([GaLoreProjector])


def _check_trained(model: PreTrainedModel | PeftModel) -> None:
    soft = [model.prompt_encoder] if isinstance(model, soft_prompts.SoftPromptModel) else []
    parts = (bare(model).get_decoder(), bare(model).get_output_embeddings(), *soft)
    inside = {id(parameter) for part in parts for parameter in part.parameters()}
    strange = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in inside]
    assert not strange, f"{strange[0]} trains, outside the text decoder and its head"


def boundary(config: Config) -> int:
    """Optimiser steps after which a checkpoint holds everything: where GRPO or RLOO has used up what it drew."""
    if not isinstance(config, DRAWING):
        return 1
    used = config.steps_per_generation * config.num_iterations
    return math.lcm(used, config.gradient_accumulation_steps) // config.gradient_accumulation_steps
