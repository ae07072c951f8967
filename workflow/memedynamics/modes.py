"""What a study may combine: adapter, options, optimiser and trainer arguments, checked before anything is loaded.

Refused is what breaks an invariant of the study, each with its reason:
1. Initialisations that change the base weights (PiSSA 2404.02948, OLoRA 2406.01775, CorDA 2406.05223, LoftQ
   2310.08659, LoRA-GA 2407.05000): with the adapter off the policy is no longer the base. That is the reference of DPO,
   KTO and GRPO, and of every KL in the analyses, whatever the objective.
2. Initialisations away from the base (B ≠ 0), and those that need data the trainers do not hand on (EVA 2410.07170).
3. Optimisers that project gradients of whole matrices (GaLore 2403.03507, APOLLO 2412.05270) on adapters: LoRA's
   factors are of low rank already, IA³ and prompts have no matrices. And layer-wise ones, whose state no checkpoint
   holds.
4. What TRL refuses for pictures: packing, padding-free batches, reference log-probabilities computed beforehand.
5. An adapter's options and layers where full weights train, which would not heed them.
"""

import re
from collections.abc import Mapping
from importlib.util import find_spec

from memedynamics import layers
from memedynamics.environment import BITSANDBYTES
from memedynamics.errors import InputError
from memedynamics.methods import GRADING, HANDED_OVER, LORA, Adapter, TrainedMethod
from memedynamics.sections import BaseModelConfig

# Initialisations under which a fresh adapter changes nothing and the base stays what it is.
NEUTRAL = (True, "gaussian")
PROJECTED = ("galore", "apollo")
PACKAGES = {"galore": "galore_torch", "apollo": "apollo_torch", BITSANDBYTES.pattern: "bitsandbytes"}
TEXT_ALONE = {
    "packing": "rows with pictures are not packed",
    "eval_packing": "rows with pictures are not packed",
    "padding_free": "batches with pictures are padded",
    "precompute_ref_log_probs": "rows with pictures carry no log-probabilities",
}
NOT_IN_A_STUDY = {
    "hub_token": "what a study file says stands in records and logs; export HF_TOKEN where something needs it",
    "push_to_hub": "jobs use no network; `snakemake exports` writes folders that can be uploaded",
}
# LLaMA-Factory's own arguments that follow from the study file.
RESERVED = {
    "model_name_or_path": "use base_model",
    "trust_remote_code": "code of model repositories is never run",
    "adapter_name_or_path": "use adapter and from",
    "finetuning_type": "use adapter",
    "lora_rank": "use adapter.r",
    "lora_alpha": "use adapter.alpha",
    "lora_dropout": "use adapter.dropout",
    "lora_target": "use adapter.layers",
    "use_rslora": "use adapter.kind rslora",
    "use_dora": "use adapter.kind dora",
    "pissa_init": "it changes the base, which is the reference",
    "quantization_bit": "the reference is the base as it is",
    "ref_model": "use reference",
    "ref_model_adapters": "use reference",
    "stage": "use kind",
    "template": "the prompt is the study's",
    "dataset": "pairs come from preferences",
    "dataset_dir": "pairs come from preferences",
    "eval_dataset": "use milestones",
    "val_size": "use milestones",
    "max_samples": "pairs come from preferences",
    "cutoff_len": "nothing is cut",
    "image_max_pixels": "use base_model.processor",
    "image_min_pixels": "use base_model.processor",
    "pref_beta": "use beta",
    "pref_loss": "use loss_type",
    "dpo_label_smoothing": "use label_smoothing",
    "disable_gradient_checkpointing": "use gradient_checkpointing",
    "include_num_input_tokens_seen": "tokens are always counted",
    "overwrite_output_dir": "results lie under results/<study>",
}
_AWAY = "the policy would not start at the base to the last bit"
_CHANGES = (
    "changes the base weights, so that with the adapter off the policy is no longer the base: the reference of DPO, "
    "KTO and GRPO, and of every KL"
)


def check(adapter: Adapter, args: Mapping[str, object]) -> None:
    """Raise InputError where `adapter`, or the trainer arguments `args` with it, break an invariant; with the reason.

    `args` are those of a method, merged over the study's `training`.
    """
    layers.check(adapter.layers)
    _initialisation(adapter)
    for name, reason in TEXT_ALONE.items():
        if args.get(name):
            raise InputError(f"trainer argument {name}: TRL cannot for vision data ({reason}); remove it")
    for name, reason in NOT_IN_A_STUDY.items():
        if args.get(name):
            raise InputError(f"trainer argument {name}: {reason}; remove it")
    _optimiser(str(args.get("optim", "")), adapter.kind)
    if adapter.kind == "full" and adapter.layers != "all" and not str(args.get("optim", "")).startswith(PROJECTED):
        raise InputError(
            f"adapter.layers {adapter.layers!r}: full weights train in all layers, which only galore and apollo tell "
            "apart; set adapter.layers: all, or another kind"
        )
    if adapter.kind == "qlora" and find_spec("bitsandbytes") is None:
        raise InputError("adapter.kind: qlora needs the package bitsandbytes; install it or choose lora")


def check_grading(adapter: Adapter) -> None:
    """Raise InputError where a reward model cannot have `adapter`: grading adds plain factors."""
    if adapter.options.get("use_dora"):
        raise InputError("adapter.options.use_dora: a reward model adds plain factors; set reward_model.adapter")
    if adapter.kind not in GRADING:
        raise InputError(
            f"adapter.kind: {adapter.kind}: a reward model takes {' or '.join(GRADING)}; set reward_model.adapter.kind"
        )


def check_handed_over(method: TrainedMethod, kind: str, base: BaseModelConfig) -> None:
    """Raise InputError where LLaMA-Factory cannot train `method`, with an adapter of `kind`, as the study means it."""
    if kind not in HANDED_OVER:
        raise InputError(f"backend llamafactory: trains {', '.join(HANDED_OVER)}, not {kind}; use backend trl")
    if method.reference == "parent" and base.dtype != "float32":
        raise InputError(
            f"reference parent: LLaMA-Factory adds the parent's adapter to weights in {base.dtype}, and so rounds it; "
            "use backend trl"
        )


def check_own(args: Mapping[str, object]) -> None:
    """Raise InputError where `args` hold one of LLaMA-Factory's own that follows from the study file."""
    for name in args:
        if name in RESERVED:
            raise InputError(f"trainer argument {name}: is set by the study itself ({RESERVED[name]}); remove it")


def _initialisation(adapter: Adapter) -> None:
    if adapter.kind == "full" and adapter.options:
        raise InputError(f"adapter.options.{next(iter(adapter.options))}: full weights have no adapter; remove it")
    given = adapter.options.get("init_lora_weights", True)
    if adapter.kind in LORA and given not in NEUTRAL:
        why = _AWAY if given in (False, "orthogonal") else _CHANGES
        why = "is drawn from data that the trainers do not hand on" if str(given).startswith("eva") else why
        raise InputError(f"adapter.options.init_lora_weights {given!r}: {why}; remove it")
    if adapter.options.get("loftq_config"):
        raise InputError(f"adapter.options.loftq_config: {_CHANGES}; remove it")
    if adapter.options.get("init_ia3_weights", True) is not True:
        raise InputError(f"adapter.options.init_ia3_weights: {_AWAY}; remove it")


def _optimiser(optim: str, kind: str) -> None:
    if optim.startswith(PROJECTED):
        if kind != "full":
            raise InputError(
                f"trainer argument optim: {optim} projects the gradients of whole weight matrices, of which {kind} "
                "trains none; use adapter.kind full, or another optim"
            )
        if optim.endswith("layerwise"):
            raise InputError(f"trainer argument optim: no checkpoint holds the state of {optim}; use another optim")
    for mark, package in PACKAGES.items():
        if re.search(mark, optim) and find_spec(package) is None:
            raise InputError(f"trainer argument optim: {optim} needs the package {package}; install it")
