"""What must hold before a method trains, measured on a few real memes with the code that will train and score.

Each is a deviation with a tolerance; log-probabilities are compared in nat a token (`forced_logps.gap`).
1. sampled: the log-probabilities that sampling stored = those of whole sequences, teacher-forced.
2. scored: scoring, with its shared prompts, = whole sequences.
3. adapter_off: with the adapter off, the policy is the base model; of QLoRA, the base in four bits. start: full weights
   before their first step are the base. quantised: how far QLoRA's base in four bits is from the base that its adapter
   is scored on; it is no error, but a base that lost more than a nat a token is another model.
4. prompts: the trainer feeds exactly the token ids that sampling and scoring feed.
5. dpo_margin, dpo_loss: at step 0 π = π0, so the margin is 0 and the loss −log σ(0) = ln 2.
   kto_margin, kto_kl, kto_loss: so are KTO's margin and KL, and its loss is the mean of λ (1 − σ(0)) = λ / 2, half of
   the rows with the weight λ of chosen responses and half with that of rejected ones.
6. grpo_kl, rloo_kl: at step 0 KL(π‖π0) = 0.
7. em_entropy: at step 0 EM's loss is the base's own entropy, as scoring measures it on the responses it drew. In nat,
   of the sequence in nat a token.
8. reloaded, merged: a milestone's folder, loaded as scoring does, is the policy in memory; so is its merged model. Full
   weights have nothing to merge; QLoRA's adapter is merged into the base itself.

A run that begins at another one's end is measured there:
9. parent: it starts as that end, its parent's milestone 1 loaded as scoring does (QLoRA: up to `quantised`'s bound). 3
   still holds, and 5 to 7 where its loss compares with that end.
10. reference: where its loss compares with the base, the reference is the base: the adapter off, or full weights.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner
from transformers import PreTrainedModel, Trainer

from memedynamics import adapters, external, vlm
from memedynamics.errors import InputError
from memedynamics.first_step import Invariant, exact, first_step
from memedynamics.forced_logps import Reader, gap
from memedynamics.saving import Policy, save

_START = "the policy does not start at the reference; remove adapter.options.init_lora_weights"
# Nat a token, a bound that only a broken base reaches: the tests' model of random weights loses 0.005 in NF4.
QUANTISED = 1.0
CAUSES = {
    "sampled": "the model or its samples were exchanged by hand (delete the samples to draw them again), or this model "
    "family counts positions differently when a prompt is continued",
    "scored": "this model family counts positions or masks differently when a prompt is continued",
    "adapter_off": "the adapter's initialisation changes the base weights, so that the reference is lost; remove "
    "adapter.options.init_lora_weights (pissa, olora, corda, loftq …)",
    "start": "full weights were loaded otherwise than the base; make the base model anew",
    "quantised": "four bits do not hold this model; use adapter.kind lora",
    "parent": "the run that it begins at was changed, or its adapter is read otherwise here; train that run again",
    "reference": "the loss compares with another policy than the base; remove trainer arguments that exchange it",
    "prompts": "a trainer argument cuts or changes what the model reads (max_length, a chat template); remove it",
    "dpo_margin": _START,
    "dpo_loss": _START,
    "grpo_kl": _START,
    **dict.fromkeys(("kto_margin", "kto_kl", "kto_loss", "rloo_kl"), _START),
    "em_entropy": "training and scoring read different distributions; remove temperature and what truncates sampling "
    "from the trainer arguments, and adapter.options.init_lora_weights",
    "reloaded": "something that trains is not in the saved folder, or the folder was changed; remove adapter.options",
    "merged": "this kind of adapter does not merge into weights of this dtype; remove adapter.options",
}


def measure(
    reader: Reader,
    model: PreTrainedModel,
    start: Callable[[], Policy],
    trainer: Callable[[Policy], Trainer],
    folder: Path,
    nats: float,
    parent: Path | None = None,
    away: bool = False,
) -> Iterator[tuple[str, Invariant]]:
    """Every invariant of a method by name, one after the other; `nats` is what the dtype explains a token.

    `start` gives the policy as training finds it, which may be the base `model` itself, and `trainer` TRL's trainer of
    it for `one_step`. `folder` is for a milestone. `parent`: the milestone it goes on from. `away`: its loss compares
    with the base, and not with that start.
    """
    reference = reader.plain(model)
    yield from base(reader, model, reference, nats).items()
    begin = _ended(reader, model, parent) if parent else reference
    policy = start()
    quantised = getattr(vlm.bare(policy), "is_loaded_in_4bit", False)
    unadapted = _unadapted(reader, policy) if quantised else reference
    if quantised:
        yield "quantised", Invariant(gap(unadapted, reference), QUANTISED)
    made = trainer(policy)
    if isinstance(made.model, PeftModel):
        yield from adapter_off(reader, made.model, unadapted, nats).items()
    if parent or not isinstance(made.model, PeftModel):
        found = gap(reader.plain(made.model.eval()), begin)
        yield "parent" if parent else "start", Invariant(found, QUANTISED if quantised else nats)
    if away:
        yield "reference", Invariant(compared_with(reader, made, unadapted), nats)
    yield from first_step(made, reader, nats, away).items()
    read = moved(reader, made.model, folder)
    policy = made.model.unload() if isinstance(made.model, PeftModel) else None
    del made  # full weights: there may be no room for both
    if policy is None:
        yield "reloaded", Invariant(gap(reader.plain(_like(model, folder)), read), nats)
    else:
        yield from loaded(reader, policy, folder, read, nats, model if quantised else None).items()


def _ended(reader: Reader, model: PreTrainedModel, milestone: Path) -> list[torch.Tensor]:
    """Log-probabilities of another run's `milestone`, loaded as scoring does; leaves the base `model` as it is."""
    if external.kind(milestone) == "full":
        return reader.plain(_like(model, milestone))
    policy = _put_on(model, milestone)
    found = reader.plain(policy)
    policy.unload()
    return found


def compared_with(reader: Reader, trainer: Trainer, base: list[torch.Tensor]) -> float:
    """How far what the loss compares with is from the `base`, nat a token; infinite where it is another adapter."""
    model, other = trainer.model, getattr(trainer, "ref_model", None)
    if other is not None:
        return gap(reader.plain(other), base)
    if not isinstance(model, PeftModel) or "ref" in model.peft_config:
        return math.inf
    return gap(_unadapted(reader, model), base)


def _unadapted(reader: Reader, policy: Policy) -> list[torch.Tensor]:
    with adapters.off(policy.eval()):
        return reader.plain(policy)


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
        found = {"adapter_off": exact("adapter_off", gap(reader.plain(policy), reference), nats)}
    policy.train(training)
    return found


def moved(reader: Reader, policy: Policy, folder: Path) -> list[torch.Tensor]:
    """Put seeded noise on all that trains, save the policy to `folder`, and read its log-probabilities.

    An adapter at its start changes nothing, so nothing that goes wrong with it would show. Full weights move by 1 %.
    """
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in filter(lambda p: p.requires_grad, policy.parameters()):
            size = 1.0 if isinstance(policy, PeftModel) else parameter.square().mean().sqrt().item()
            drawn = 0.01 * size * torch.randn(parameter.shape, generator=noise)
            parameter.add_(drawn.to(parameter.device, parameter.dtype))
    save(policy, folder)
    return reader.plain(policy.eval())


def loaded(
    reader: Reader,
    model: PreTrainedModel,
    folder: Path,
    moved: list[torch.Tensor],
    nats: float,
    base: PreTrainedModel | None = None,
) -> dict[str, Invariant]:
    """`reloaded`: the adapter in `folder` on the bare `model` gives the log-probabilities `moved`; then `merged`.

    Where `model` is quantised the merge is into `base`.
    """
    policy = _put_on(model, folder)
    reloaded = reader.plain(policy)
    found = {"reloaded": Invariant(gap(reloaded, moved), nats)}
    if base is not None:
        policy = _put_on(base, folder)
        reloaded = reader.plain(policy)
    if isinstance(policy.base_model, BaseTuner):
        merged = reader.plain(policy.merge_and_unload())
        found["merged"] = Invariant(gap(merged, reloaded), nats)
    return found


def _like(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    return vlm.load_model(folder, str(model.dtype).removeprefix("torch."), model.config._attn_implementation)


def _put_on(model: PreTrainedModel, folder: Path) -> PeftModel:
    policy = adapters.load_adapters(model, {"1": folder})
    adapters.activate(policy, "1")
    return policy


def require(name: str, invariant: Invariant, kind: str, dtype: str) -> None:
    """Raise InputError where the invariant is violated: which, the numbers, the likely cause."""
    if not invariant.ok:
        raise InputError(
            f"preflight of {kind}: {name} is off by {invariant.value:.3g}, and {dtype} explains no more than "
            f"{invariant.tolerance:.3g}; likely cause: {CAUSES[name]}"
        )
