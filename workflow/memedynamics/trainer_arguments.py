"""Trainer arguments of the study file checked against TRL's config classes, before anything is loaded.

TRL names neither the nearest valid argument nor those that make up a batch; and some arguments the study sets itself.
"""

import difflib
from dataclasses import fields
from typing import Literal, get_type_hints

from pydantic import TypeAdapter, ValidationError
from transformers import TrainingArguments
from trl import DPOConfig, GRPOConfig, KTOConfig, RLOOConfig, SFTConfig

from memedynamics.errors import InputError
from memedynamics.methods import GRPO

# All kinds of methods that train here, and the reward model of RLHF.
Kind = Literal[
    "sft", "rft", "dpo", "kto", "rloo", "em", "reward_model",
    "grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo", "sapo", "luspo", "vespo",
]  # fmt: skip
Config = SFTConfig | DPOConfig | KTOConfig | GRPOConfig | RLOOConfig
# Configs of trainers that draw groups of responses to a prompt.
DRAWING = (GRPOConfig, RLOOConfig)

CONFIGS: dict[str, type[TrainingArguments]] = {
    "sft": SFTConfig,
    "rft": SFTConfig,
    "dpo": DPOConfig,
    "kto": KTOConfig,
    "rloo": RLOOConfig,
    **dict.fromkeys(GRPO, GRPOConfig),
    "em": GRPOConfig,
    "reward_model": TrainingArguments,
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


def checked(kind: Kind, args: dict[str, object]) -> dict[str, object]:
    """`args` in the types that TRL's config class declares: YAML reads 1e-5 as text.

    Raises InputError naming the argument, with the nearest valid name.
    """
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


def check_groups(args: dict[str, object]) -> None:
    """GRPO's and RLOO's batch must hold whole groups; TRL says so without naming the arguments that make up the batch.

    Raises InputError where it does not.
    """
    group = args.get("num_generations", GRPOConfig.num_generations)
    batch = args.get("per_device_train_batch_size", GRPOConfig.per_device_train_batch_size)
    rounds = args.get("steps_per_generation") or args.get("gradient_accumulation_steps", 1)
    total = args.get("generation_batch_size") or batch * rounds
    if total % group:
        raise InputError(
            f"trainer argument num_generations: {group} does not divide the generation batch of {total} completions "
            f"(per_device_train_batch_size {batch} × {rounds}); change either"
        )


def check_halves(args: dict[str, object]) -> None:
    """KTO's batch must be even: half of it chosen responses, and never a row alone, which KTO's KL cannot do.

    Raises InputError where it is not.
    """
    batch = args.get("per_device_train_batch_size", KTOConfig.per_device_train_batch_size)
    if batch % 2:
        raise InputError(
            f"trainer argument per_device_train_batch_size: {batch} of a kto method, whose rows are single responses, "
            "half of them chosen; make it even"
        )
