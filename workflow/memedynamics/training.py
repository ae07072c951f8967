"""The methods under matched conditions: the same prompts, adapter, seed, prompt bytes and pictures.

TRL trains; this module builds its configs and trainers. Where the defaults differ from TRL's:
1. Prompts of SFT, RFT and DPO come rendered (module `examples`). RFT is SFT on other responses.
2. GRPO is that of DeepSeekMath (2402.03300): loss_type grpo, beta 0.04, no importance-sampling correction of the KL
   term. (TRL: dapo, 0, with correction.)
3. Completions of GRPO and EM are sampled exactly as in `sample_base`: its temperature and length, no truncation.
4. EM is GRPO's loop with a loss of its own (module `entropy_minimisation`): no reference, fresh responses every step.
5. Nothing is cut (max_length), every step is logged, no mixed precision unless the base model is in bfloat16 on a GPU.
"""

import difflib
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_type_hints

import polars as pl
import torch
from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedModel, PrinterCallback, ProcessorMixin, Trainer, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from memedynamics.adapters import lora_config
from memedynamics.config import Adapter, Sampling
from memedynamics.errors import InputError
from memedynamics.examples import dataset, end_token
from memedynamics.methods import ON_POLICY
from memedynamics.rewards import Reward
from memedynamics.vlm import bare

Kind = Literal["sft", "dpo", "grpo", "rft", "em"]
Config = SFTConfig | DPOConfig | GRPOConfig

CONFIGS: dict[str, type[Config]] = {
    "sft": SFTConfig,
    "rft": SFTConfig,
    "dpo": DPOConfig,
    "grpo": GRPOConfig,
    "em": GRPOConfig,
}
EXAMPLES = {SFTConfig: "sft", DPOConfig: "dpo", GRPOConfig: "grpo"}
OURS: dict[str, object] = {"logging_steps": 1, "save_steps": 0.1, "save_total_limit": 2, "report_to": "none"}
DEFAULTS: dict[str, dict[str, object]] = {
    "sft": {"max_length": None},
    "rft": {"max_length": None},
    "dpo": {"max_length": None},
    "grpo": {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": False},
    "em": {"beta": 0.0},
}
# Arguments that follow from the study file or that resuming and milestones depend on.
RESERVED = {
    "output_dir": "results lie under results/<study>",
    "seed": "use seeds",
    "data_seed": "use seeds",
    "reward_weights": "use rewards",
    "save_strategy": "use save_steps",
    "save_only_model": "checkpoints must be resumable",
    "load_best_model_at_end": "use milestones",
    "remove_unused_columns": "rewards need the columns",
    "model_init_kwargs": "use base_model",
    "logging_strategy": "use logging_steps",
    "logging_nan_inf_filter": "a loss that is not finite must stop the run",
    "disable_tqdm": "the job shows its own progress",
}
# Arguments of GRPO's loss and of reused completions, by how they begin: EM has neither.
NOT_FOR_EM = (
    "beta", "epsilon", "delta", "sapo_", "vespo_", "importance_sampling_level", "multi_objective_aggregation",
    "scale_rewards", "loss_type", "sync_ref_model", "ref_model_", "top_entropy_quantile", "entropy_",
    "use_adaptive_entropy", "off_policy_mask_threshold", "use_bias_correction_kl", "num_iterations",
    "steps_per_generation", "generation_batch_size",
)  # fmt: skip


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

    `sampling` and `weights` (rewards by name) matter to GRPO and EM alone. Raises InputError as `check_args` does.
    """
    args = _checked(kind, args)
    gpu = torch.cuda.is_available()
    given = {
        **OURS,
        "bf16": gpu and dtype == "bfloat16",
        "dataloader_pin_memory": gpu,
        **DEFAULTS[kind],
        **(_sampling(sampling) if kind in ON_POLICY and sampling else {}),
        **args,
        "output_dir": str(folder),
        "seed": seed,
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,
    }
    if kind in ON_POLICY:
        _check_groups(given)
        given["reward_weights"] = list(weights.values()) if weights else None
    try:
        return CONFIGS[kind](**given)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"trainer arguments of a {kind} method: {' '.join(str(error).split())}") from error


def _checked(kind: Kind, args: dict[str, object]) -> dict[str, object]:
    """`args` in the types that TRL's config class declares: YAML reads 1e-5 as text."""
    types = get_type_hints(CONFIGS[kind])
    known = {field.name for field in fields(CONFIGS[kind]) if field.init}
    for name in args:
        if name in RESERVED:
            raise InputError(f"trainer argument {name}: is set by the study itself ({RESERVED[name]}); remove it")
        if kind == "em" and name in known and name.startswith(NOT_FOR_EM):
            raise InputError(f"trainer argument {name}: em has its own loss on fresh responses (objective); remove it")
        if name not in known:
            nearest = difflib.get_close_matches(name, known - set(RESERVED), n=1, cutoff=0.0)
            raise InputError(
                f"trainer argument {name}: {CONFIGS[kind].__name__} has no such argument; nearest is {nearest[0]}"
            )
    return {name: _typed(name, value, types[name]) for name, value in args.items()}


def _typed(name: str, value: object, declared: object) -> object:
    try:
        return TypeAdapter(declared).validate_python(value)
    except ValidationError as error:
        raise InputError(f"trainer argument {name}: {value!r}: {error.errors()[0]['msg']}") from error


def _sampling(sampling: Sampling) -> dict[str, object]:
    return {
        "temperature": sampling.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "max_completion_length": sampling.max_new_tokens,
    }


def _check_groups(args: dict[str, object]) -> None:
    """GRPO's batch must hold whole groups; TRL says so without naming the arguments that make up the batch."""
    group = args.get("num_generations", GRPOConfig.num_generations)
    batch = args.get("per_device_train_batch_size", GRPOConfig.per_device_train_batch_size)
    rounds = args.get("steps_per_generation") or args.get("gradient_accumulation_steps", 1)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    total = args.get("generation_batch_size") or batch * rounds * processes
    if total % group:
        raise InputError(
            f"trainer argument num_generations: {group} does not divide the generation batch of {total} completions "
            f"(per_device_train_batch_size {batch} × {rounds} × {processes} processes); change either"
        )


def trainer(
    config: Config,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    rows: pl.DataFrame,
    adapter: Adapter,
    rewards: list[Reward] | None = None,
    hooks: list[TrainerCallback] | None = None,
    on_policy: Callable[..., GRPOTrainer] = GRPOTrainer,
) -> Trainer:
    """TRL's trainer for `config` on `rows` (examples.training_rows), with the adapter put on the frozen `model`.

    `rewards` grade the responses of GRPO and EM, which `on_policy` trains. Raises InputError when there are too few
    prompts for one of their batches.
    """
    common = {
        "model": model,
        "args": config,
        "train_dataset": dataset(EXAMPLES[type(config)], rows, processor, end_token(model, processor)),
        "processing_class": processor,
        "peft_config": lora_config(model, adapter),
        "callbacks": hooks,
    }
    if isinstance(config, GRPOConfig):
        needed = config.generation_batch_size // config.num_generations
        if len(rows) < needed:
            raise InputError(
                f"training: {len(rows)} prompts, but one generation batch takes {needed} (per_device_train_batch_size "
                f"over num_generations); make it smaller"
            )
        made = on_policy(reward_funcs=rewards, **common)
    else:
        made = (SFTTrainer if isinstance(config, SFTConfig) else DPOTrainer)(**common)
    made.remove_callback(PrinterCallback)
    decoder = {id(parameter) for parameter in bare(made.model).get_decoder().parameters()}
    assert all(id(p) in decoder for p in made.model.parameters() if p.requires_grad), "the adapter left the decoder"
    return made


def boundary(config: Config) -> int:
    """Optimiser steps after which a checkpoint holds everything: where GRPO has used up the completions it drew."""
    if not isinstance(config, GRPOConfig):
        return 1
    used = config.steps_per_generation * config.num_iterations
    return math.lcm(used, config.gradient_accumulation_steps) // config.gradient_accumulation_steps
