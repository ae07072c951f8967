"""Methods and the adapter they share: the part of the study file that says what is trained."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, ValidationInfo, field_validator

from memedynamics.sections import Fraction, Strict


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

    kind: Literal["sft", "dpo", "grpo"] = Field(description="objective")
    args: dict[str, object] = Field(
        default_factory=dict, description="arguments of TRL's config class by their own names"
    )
    adapter: Adapter | None = Field(
        None,
        description="keys that differ from the study's adapter (breaks matching: warned); an empty alpha is 2r again",
    )
    train_prompts: Literal["paired", "all"] | None = Field(
        None, description="instead of the study's train_prompts (grpo only)"
    )

    @field_validator("train_prompts")
    @classmethod
    def _only_for_grpo(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("kind", "grpo") != "grpo":
            raise ValueError(f"is for grpo alone, {info.data['kind']} trains on preference pairs; remove it")
        return value


class ExternalMethod(Strict):
    """A checkpoint trained elsewhere, brought in as a run."""

    kind: Literal["external"] = Field(description="a checkpoint trained elsewhere")
    path: str = Field(description="folder or hub id of an adapter or of full weights")
    revision: str | None = Field(None, description="commit of the hub repository")


Method = Annotated[TrainedMethod | ExternalMethod, Field(discriminator="kind")]
