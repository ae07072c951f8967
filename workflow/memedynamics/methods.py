"""Methods and the adapter they share: the part of the study file that says what is trained."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, ValidationInfo, field_validator

from memedynamics.prompts import Prompt
from memedynamics.sections import BaseModelConfig, Fraction, Strict

# Kinds that draw their own responses while they train, and so need prompts alone.
ON_POLICY = ("grpo", "em")
# Kinds that need no pair, and so can train on all prompts.
WITHOUT_PAIRS = (*ON_POLICY, "rft")


class Adapter(Strict):
    """The adapter all methods share, so that they differ in the objective alone."""

    kind: Literal["lora"] = Field("lora", description="kind of adapter")
    r: PositiveInt = Field(16, description="rank")
    alpha: PositiveInt | None = Field(None, description="LoRA alpha; empty: 2r")
    dropout: Fraction = Field(0.0, description="LoRA dropout")
    layers: Literal["all", "attention"] = Field(
        "all", description="linear layers of the language model: all, or those of attention alone"
    )
    options: dict[str, object] = Field(
        default_factory=dict, description="further arguments of peft.LoraConfig by their own names"
    )


class TrainedMethod(Strict):
    """A run trained here."""

    kind: Literal["sft", "dpo", "grpo", "rft"] = Field(
        description="objective; sft trains on the chosen responses, rft on all correct, well-formed base samples of "
        "the prompts that gave a pair; with train_prompts all also of those always answered right"
    )
    args: dict[str, object] = Field(
        default_factory=dict, description="arguments of TRL's config class by their own names"
    )
    adapter: Adapter | None = Field(
        None,
        description="keys that differ from the study's adapter (breaks matching: warned); an empty alpha is 2r again",
    )
    train_prompts: Literal["paired", "all"] | None = Field(
        None,
        description="instead of the study's train_prompts (grpo, em and rft only); paired prompts were chosen with the "
        "labels, all takes none",
    )

    @field_validator("train_prompts")
    @classmethod
    def _only_without_pairs(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("kind", "grpo") not in WITHOUT_PAIRS:
            raise ValueError(f"is for grpo, em and rft alone, {info.data['kind']} trains on pairs; remove it")
        return value

    def prompts_of(self, shared: Literal["paired", "all"]) -> Literal["paired", "all"]:
        """Which prompts it trains on in a study whose train_prompts are `shared`."""
        return (self.train_prompts or shared) if self.kind in WITHOUT_PAIRS else "paired"


class EntropyMinimisation(TrainedMethod):
    """Entropy minimisation on the policy's own responses: no label in its loss unless `label_gated`.

    Paired prompts were themselves chosen with the labels: without any takes `train_prompts: all`.
    """

    kind: Literal["em"] = Field(description="entropy minimisation")
    objective: Literal["decision", "token", "sequence"] = Field(
        "decision",
        description="whose entropy falls: the answer's after a sampled rationale; the mean over the tokens of sampled "
        "responses (One-shot EM, RENT); the whole response's (REINFORCE with reward log π)",
    )
    prompts: PositiveInt | None = Field(
        None, description="how many prompts, drawn by the run's seed; 1 is one-shot, empty all (fewer: warned)"
    )
    label_gated: bool = Field(
        False,
        description="only where the policy is right: its decision (objective decision) or its sampled answer; "
        "takes the labels",
    )


class ExternalMethod(Strict):
    """A checkpoint trained elsewhere, brought in as a run."""

    kind: Literal["external"] = Field(description="a checkpoint trained elsewhere")
    path: str = Field(description="folder or hub id of an adapter or of full weights")
    revision: str | None = Field(None, description="commit of the hub repository")


Trained = Annotated[TrainedMethod | EntropyMinimisation, Field(discriminator="kind")]
Method = Annotated[TrainedMethod | EntropyMinimisation | ExternalMethod, Field(discriminator="kind")]


class Matched(Strict):
    """What all trainings of a study share, so that methods differ in the objective alone."""

    base: BaseModelConfig = Field(description="the model every method starts from")
    adapter: Adapter = Field(description="the adapter, where a method has none of its own")
    training: dict[str, object] = Field(description="trainer arguments shared by all methods")
    prompt: Prompt = Field(description="the study's prompt")
    question: str = Field(description="which of its questions the training set asks")
