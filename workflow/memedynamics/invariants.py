"""What must hold before a method trains, measured on a few real memes with the code that will train and score.

Each is a deviation with a tolerance; log-probabilities are compared in nat a token (`forced_logps.gap`).
1. sampled: the log-probabilities that sampling stored = those of whole sequences, teacher-forced.
2. scored: scoring, with its shared prompts, = whole sequences.
3. adapter_off: with the adapter off, the policy is the base model.
4. prompts: the trainer feeds exactly the token ids that sampling and scoring feed.
5. dpo_margin, dpo_loss: at step 0 π = π0, so the margin is 0 and the loss −log σ(0) = ln 2.
6. grpo_kl: at step 0 KL(π‖π0) = 0.
7. em_entropy: at step 0 EM's loss is the base's own entropy, as scoring measures it on the responses it drew. In nat,
   of the sequence in nat a token.
8. reloaded, merged: a milestone's folder, loaded as scoring does, is the policy in memory; so is its merged model.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from transformers import PreTrainedModel, Trainer
from trl import DPOConfig, GRPOConfig

from memedynamics import adapters, vlm
from memedynamics.callbacks import save_adapter
from memedynamics.entropy_minimisation import EntropyTrainer
from memedynamics.entropy_start import deviation, observed
from memedynamics.errors import InputError
from memedynamics.forced_logps import Reader, gap, unpadded
from memedynamics.methods import ON_POLICY

# Nat a token. On 28 random layers the same sums in another order, and a merged adapter of 0.3 nat, gave 1e-6 and 5e-6
# (float32), 0.003 and 0.006 (float16), 0.02 and 0.04 (bfloat16, 8 bits: a logit of 20 is rounded to eighths).
TOLERANCE = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}
# What must be exact in any dtype: policy and reference are one model on one batch, and an adapter that is off, or whose
# B = 0, adds nothing to the same sums in the same order, so that rounding cancels to the last bit. What half precision
# explains would hide a start away from the reference: PiSSA's loss of 0.6955 is ln 2 + 0.0024. The units are nat a
# token, reward, nat, nat a token.
EXACT = {"adapter_off": 1e-3, "dpo_margin": 1e-3, "dpo_loss": 1e-3, "grpo_kl": 1e-5}
_START = "the policy does not start at the reference; remove adapter.options.init_lora_weights"
CAUSES = {
    "sampled": "the model or its samples were exchanged by hand (delete the samples to draw them again), or this model "
    "family counts positions differently when a prompt is continued",
    "scored": "this model family counts positions or masks differently when a prompt is continued",
    "adapter_off": "the adapter's initialisation changes the base weights, so that the reference is lost; remove "
    "adapter.options.init_lora_weights (pissa, olora, corda, loftq …)",
    "prompts": "a trainer argument cuts or changes what the model reads (max_length, a chat template); remove it",
    "dpo_margin": _START,
    "dpo_loss": _START,
    "grpo_kl": _START,
    "em_entropy": "training and scoring read different distributions; remove temperature and what truncates sampling "
    "from the trainer arguments, and adapter.options.init_lora_weights",
    "reloaded": "something that trains is not in the saved folder, or the folder was changed; remove adapter.options",
    "merged": "this kind of adapter does not merge into weights of this dtype; remove adapter.options",
}


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
    if kind == "grpo":
        # The estimate of KL is logged only where it has a weight.
        cut |= {"steps_per_generation": None, "generation_batch_size": None, "beta": args.get("beta") or 0.04}
    return {**args, **cut}


def measure(
    reader: Reader, model: PreTrainedModel, trainer: Callable[[], Trainer], folder: Path, nats: float
) -> Iterator[tuple[str, Invariant]]:
    """Every invariant of a method by name, one after the other; `nats` is what the dtype explains a token.

    `trainer` makes TRL's trainer for `one_step`, with the adapter put on the base `model`. `folder` is for an adapter.
    """
    reference = reader.plain(model)
    yield from base(reader, model, reference, nats).items()
    made = trainer()
    yield from adapter_off(reader, made.model, reference, nats).items()
    yield from first_step(made, reader, nats).items()
    policy = moved(reader, made.model, folder)
    yield from loaded(reader, made.model.unload(), folder, policy, nats).items()


def base(reader: Reader, model: PreTrainedModel, reference: list[torch.Tensor], nats: float) -> dict[str, Invariant]:
    """`sampled` and `scored` against `reference`, the plain log-probabilities of the base model without an adapter."""
    totals = zip(reference, reader.stored, strict=True)
    sampled = max(abs(logp.double().sum().item() - stored) / len(logp) for logp, stored in totals)
    return {
        "sampled": Invariant(sampled, nats),
        "scored": Invariant(gap(reader.shared(model), reference), nats),
    }


def adapter_off(reader: Reader, policy: PeftModel, reference: list[torch.Tensor], nats: float) -> dict[str, Invariant]:
    """`adapter_off` of a policy at its start; leaves the adapter on."""
    training = policy.training
    with policy.eval().disable_adapter():
        found = {"adapter_off": _exact("adapter_off", gap(reader.plain(policy), reference), nats)}
    policy.train(training)
    return found


def first_step(trainer: Trainer, reader: Reader, nats: float) -> dict[str, Invariant]:
    """`prompts` (how many sequences begin with none of them), and what the trainer logs of its first step."""
    prompts = reader.prompts()
    minimises = isinstance(trainer, EntropyTrainer)
    with fed(trainer.model) as rows, observed(trainer) if minimises else nullcontext() as steps:
        trainer.train()
    strange = sum(not any(row[: len(prompt)] == prompt for prompt in prompts) for row in rows)
    log = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    found = {"prompts": Invariant(strange if rows else math.nan, 0)}
    if minimises:
        return found | {"em_entropy": Invariant(deviation(trainer, steps), nats)}
    return found | _logged(trainer.args, log, nats)


def _logged(config: object, log: Mapping[str, float], nats: float) -> dict[str, Invariant]:
    if isinstance(config, GRPOConfig):
        # Estimated as r − 1 − log r: about δ²/2 for a log-ratio δ.
        return {"grpo_kl": _exact("grpo_kl", log["kl"], nats**2)}
    if not isinstance(config, DPOConfig):
        return {}
    found = {"dpo_margin": _exact("dpo_margin", log["rewards/margins"], nats)}
    if config.loss_type == ["sigmoid"] and not config.use_weighting:
        found["dpo_loss"] = _exact("dpo_loss", log["loss"] - math.log(2), nats)
    return found


def _exact(name: str, deviation: float, explained: float) -> Invariant:
    return Invariant(abs(deviation), min(explained, EXACT[name]))


@contextmanager
def fed(model: PreTrainedModel | PeftModel) -> Iterator[list[list[int]]]:
    """Collects the token ids, without padding, of the sequences that `model` reads inside; single tokens aside."""
    rows: list[list[int]] = []

    def collect(module: torch.nn.Module, args: tuple, inputs: dict[str, object]) -> None:
        if inputs["input_ids"].shape[1] > 1:
            rows.extend(unpadded(inputs["input_ids"], inputs["attention_mask"]))

    # The inner model: PEFT calls the outer one's forward past its hooks.
    hook = vlm.bare(model).model.register_forward_pre_hook(collect, with_kwargs=True)
    try:
        yield rows
    finally:
        hook.remove()


def moved(reader: Reader, policy: PeftModel, folder: Path) -> list[torch.Tensor]:
    """Put seeded noise on all that trains, save the adapter to `folder`, and read the policy's log-probabilities.

    An adapter at its start changes nothing, so nothing that goes wrong with it would show.
    """
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in filter(lambda p: p.requires_grad, policy.parameters()):
            drawn = 0.01 * torch.randn(parameter.shape, generator=noise)
            parameter.add_(drawn.to(parameter.device, parameter.dtype))
    save_adapter(policy, folder)
    return reader.plain(policy.eval())


def loaded(
    reader: Reader, model: PreTrainedModel, folder: Path, moved: list[torch.Tensor], nats: float
) -> dict[str, Invariant]:
    """`reloaded`: the adapter in `folder` on the bare `model` gives the log-probabilities `moved`; then `merged`."""
    policy = adapters.load_adapters(model, {"1": folder})
    adapters.activate(policy, "1")
    reloaded = reader.plain(policy)
    merged = reader.plain(policy.merge_and_unload())
    return {
        "reloaded": Invariant(gap(reloaded, moved), nats),
        "merged": Invariant(gap(merged, reloaded), nats),
    }


def require(name: str, invariant: Invariant, kind: str, dtype: str) -> None:
    """Raise InputError where the invariant is violated: which, the numbers, the likely cause."""
    if not invariant.ok:
        raise InputError(
            f"preflight of {kind}: {name} is off by {invariant.value:.3g}, and {dtype} explains no more than "
            f"{invariant.tolerance:.3g}; likely cause: {CAUSES[name]}"
        )
