"""The methods under matched conditions: the same prompts, adapter, seed, prompt bytes and pictures.

TRL trains; this module builds its configs and trainers. Where the defaults differ from TRL's:
1. Prompts of SFT, RFT and DPO come rendered (module `examples`). RFT is SFT on other responses.
2. GRPO is that of DeepSeekMath (2402.03300): loss_type grpo, beta 0.04, no importance-sampling correction of the KL
   term. (TRL: dapo, 0, with correction.)
3. Completions of GRPO and EM are sampled exactly as in `sample_base`: its temperature and length, no truncation.
4. EM is GRPO's loop with a loss of its own (module `entropy_minimisation`): no reference, fresh responses every step.
5. Nothing is cut (max_length), every step is logged, no mixed precision unless the base model is in bfloat16 on a GPU.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import polars as pl
import torch
from transformers import PreTrainedModel, PrinterCallback, ProcessorMixin, Trainer, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from memedynamics.adapters import lora_config
from memedynamics.config import Adapter, Sampling
from memedynamics.errors import InputError
from memedynamics.examples import dataset, end_token
from memedynamics.methods import ON_POLICY
from memedynamics.rewards import Reward
from memedynamics.trainer_arguments import CONFIGS, Config, Kind, check_groups, checked
from memedynamics.vlm import bare

EXAMPLES = {SFTConfig: "sft", DPOConfig: "dpo", GRPOConfig: "grpo"}
OURS: dict[str, object] = {"logging_steps": 1, "save_steps": 0.1, "save_total_limit": 2, "report_to": "none"}
DEFAULTS: dict[str, dict[str, object]] = {
    "sft": {"max_length": None},
    "rft": {"max_length": None},
    "dpo": {"max_length": None},
    "grpo": {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": False},
    "em": {"beta": 0.0},
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

    `sampling` and `weights` (rewards by name) matter to GRPO and EM alone. Raises InputError as `check_args` does.
    """
    args = checked(kind, args)
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
        check_groups(given)
        given["reward_weights"] = list(weights.values()) if weights else None
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
