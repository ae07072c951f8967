"""A trainer's first step, watched: what it feeds the model, and what it logs where the policy is its own reference.

The invariants are listed in module `invariants` (4 to 7).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from peft import PeftModel
from transformers import PreTrainedModel, Trainer
from trl import DPOConfig, GRPOConfig, KTOConfig, RLOOConfig

from memedynamics import vlm
from memedynamics.entropy_minimisation import EntropyTrainer
from memedynamics.entropy_start import deviation, observed
from memedynamics.forced_logps import Reader, unpadded
from memedynamics.methods import GRPO, ON_POLICY

# What must be exact in any dtype: policy and reference are one model on one batch, and an adapter that is off, or whose
# B = 0, adds nothing to the same sums in the same order, so that rounding cancels to the last bit. What half precision
# explains would hide a start away from the reference: PiSSA's loss of 0.6955 is ln 2 + 0.0024. The units are nat a
# token, reward, nat, nat a token.
EXACT = {"adapter_off": 1e-3, "dpo_margin": 1e-3, "dpo_loss": 1e-3, "grpo_kl": 1e-5}
EXACT |= {"kto_margin": 1e-3, "kto_kl": 1e-3, "kto_loss": 1e-3, "rloo_kl": 1e-3}


class Invariant(NamedTuple):
    """A measured deviation from what must hold."""

    value: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether it holds; NaN never does."""
        return self.value <= self.tolerance


def one_step(kind: str, args: Mapping[str, object], prompts: int) -> dict[str, object]:
    """Trainer arguments `args` cut down to one step over `prompts` prompts that leaves the weights as they are."""
    cut = {"max_steps": 1, "learning_rate": 0.0, "logging_steps": 1, "report_to": "none"}
    cut |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": prompts}
    if kind in ON_POLICY:
        cut |= {"per_device_train_batch_size": 2, "num_generations": 2, "num_generations_eval": None}
        cut |= {"use_vllm": False, "mask_truncated_completions": False, "max_completion_length": 64}
    if kind == "kto":
        # Two responses a prompt; and its KL takes more than one row.
        cut |= {"per_device_train_batch_size": 2}
    if kind in (*GRPO, "rloo"):
        # The estimate of KL is logged only where it has a weight.
        cut |= {"steps_per_generation": None, "generation_batch_size": None, "beta": args.get("beta") or 0.04}
    return {**args, **cut}


def first_step(trainer: Trainer, reader: Reader, nats: float, away: bool = False) -> dict[str, Invariant]:
    """`prompts` (how many sequences begin with none of them), and what the trainer logs of its first step.

    Nothing is known of that where the loss compares with another policy than the start (`away`).
    """
    prompts = reader.prompts()
    minimises = isinstance(trainer, EntropyTrainer)
    with fed(trainer.model) as rows, observed(trainer) if minimises else nullcontext() as steps:
        trainer.train()
    strange = sum(not any(row[: len(prompt)] == prompt for prompt in prompts) for row in rows)
    log = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    found = {"prompts": Invariant(strange if rows else math.nan, 0)}
    if away:
        return found
    if minimises:
        return found | {"em_entropy": Invariant(deviation(trainer, steps), nats)}
    return found | logged(trainer.args, log, nats)


def logged(config: object, log: Mapping[str, float], nats: float) -> dict[str, Invariant]:
    """What the trainer of `config` logged (`log`) of a first step whose policy is its own reference."""
    if isinstance(config, GRPOConfig):
        # Estimated as r − 1 − log r: about δ²/2 for a log-ratio δ.
        return {"grpo_kl": exact("grpo_kl", log["kl"], nats**2)}
    if isinstance(config, RLOOConfig):
        return {"rloo_kl": exact("rloo_kl", log["kl"], nats)}
    if isinstance(config, KTOConfig):
        return _kto(config, log, nats)
    if not isinstance(config, DPOConfig):
        return {}
    found = {"dpo_margin": exact("dpo_margin", log["rewards/margins"], nats)}
    if config.loss_type == ["sigmoid"] and not config.use_weighting:
        found["dpo_loss"] = exact("dpo_loss", log["loss"] - math.log(2), nats)
    return found


def _kto(config: KTOConfig, log: Mapping[str, float], nats: float) -> dict[str, Invariant]:
    loss = log["loss"] - (config.desirable_weight + config.undesirable_weight) / 4
    return {
        "kto_margin": exact("kto_margin", log["rewards/margins"], nats),
        "kto_kl": exact("kto_kl", log["kl"], nats),
        "kto_loss": exact("kto_loss", loss, nats),
    }


def exact(name: str, deviation: float, explained: float) -> Invariant:
    """A `deviation` held to what the dtype has `explained`, and to EXACT."""
    return Invariant(abs(deviation), min(explained, EXACT[name]))


@contextmanager
def fed(model: PreTrainedModel | PeftModel) -> Iterator[list[list[int]]]:
    """Collects the token ids, without padding, of the sequences that `model` reads inside; single tokens aside."""
    rows: list[list[int]] = []

    def collect(module: torch.nn.Module, args: tuple, inputs: dict[str, object]) -> None:
        if inputs["input_ids"].shape[1] > 1:
            mask = inputs.get("attention_mask")  # `generate` leaves out one that masks nothing
            rows.extend(unpadded(inputs["input_ids"], torch.ones_like(inputs["input_ids"]) if mask is None else mask))

    # The inner model: PEFT calls the outer one's forward past its hooks.
    hook = vlm.bare(model).model.register_forward_pre_hook(collect, with_kwargs=True)
    try:
        yield rows
    finally:
        hook.remove()
