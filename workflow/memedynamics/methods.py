"""Methods and the adapter they share: the part of the study file that says what is trained, imported or merged."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, ValidationInfo, field_validator, model_validator

from memedynamics.prompts import Prompt
from memedynamics.sections import BaseModelConfig, Finite, Fraction, Launch, Name, Strict

# GRPO and what later papers made of it (module grpo_variants).
GRPO = ("grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo", "sapo", "luspo", "vespo")
# Kinds whose loss weighs responses by rewards.
REWARDED = (*GRPO, "rloo")
# Kinds that draw their own responses while they train, and so need prompts alone.
ON_POLICY = (*REWARDED, "em")
# Kinds that need no pair, and so can train on all prompts.
WITHOUT_PAIRS = (*ON_POLICY, "rft")
# Kinds that train on pairs, whoever chose between the two.
OF_PAIRS = ("sft", "dpo", "kto")
# Kinds whose loss holds a reference policy.
WITH_REFERENCE = ("dpo", "kto", *REWARDED)

AdapterKind = Literal["lora", "rslora", "dora", "qlora", "ia3", "prompt", "prefix", "full"]
LORA = ("lora", "rslora", "dora", "qlora")
SOFT = ("prompt", "prefix")
# Kinds that LLaMA-Factory trains here, and those that a reward model can have.
HANDED_OVER = ("lora", "rslora", "dora")
GRADING = ("lora", "rslora")


class Adapter(Strict):
    """What trains, the same for all methods, so that they differ in the objective alone."""

    kind: AdapterKind = Field(
        "lora",
        description="lora; rslora (scaled by alpha/√r); dora (magnitude and direction apart); qlora (LoRA on a base "
        "held in 4-bit NF4 while it trains); ia3 (a factor a channel); prompt (virtual tokens before the prompt); "
        "prefix (virtual keys and values in every layer); full (all weights of the text decoder)",
    )
    r: PositiveInt = Field(16, description="rank (LoRA kinds)")
    alpha: PositiveInt | None = Field(None, description="LoRA alpha; empty: 2r")
    dropout: Fraction = Field(0.0, description="LoRA dropout")
    tokens: PositiveInt = Field(16, description="virtual tokens (kinds prompt and prefix)")
    layers: str = Field(
        "all",
        description="linear layers of the text decoder that are adapted: all, attention, mlp, qv (query and value), "
        "qv_high (those of the upper half of the layers), or a regular expression for their whole names in the decoder "
        "(layers.0.self_attn.q_proj)",
    )
    options: dict[str, object] = Field(
        default_factory=dict,
        description="further arguments of PEFT's config class by their own names; a method takes one of the study's "
        "back with null, and has its own alone where its kind is another",
    )


class TrainedMethod(Strict):
    """A run trained here."""

    kind: Literal[
        "sft", "rft", "dpo", "kto", "rloo",
        "grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo", "sapo", "luspo", "vespo",
    ] = Field(
        description="objective; sft trains on the chosen responses, rft on all correct, well-formed base samples of "
        "the prompts that gave a pair; with train_prompts all also of those always answered right"
    )  # fmt: skip
    backend: Literal["trl", "llamafactory"] = Field("trl", description="what trains: TRL, or LLaMA-Factory (sft, dpo)")
    args: dict[str, object] = Field(
        default_factory=dict, description="arguments of TRL's config class (or of LLaMA-Factory) by their own names"
    )
    adapter: Adapter | None = Field(
        None,
        description="keys that differ from the study's adapter (breaks matching: warned); an empty alpha is 2r again",
    )
    launch: Launch | None = Field(None, description="instead of the study's launch: how many processes share it")
    start: Name | None = Field(
        None, alias="from", description="another method whose end, seed by seed, is where this one begins"
    )
    reference: Literal["base", "parent"] | None = Field(
        None, description="policy that the loss compares with, of a method that begins at another one's end"
    )
    target: Literal["chosen", "answer", "groups"] = Field(
        "chosen",
        description="what sft learns to say: the chosen response, the bare right answer in the prompt's format, or the "
        "right answer after a rationale that names the groups (fine-grained labels)",
    )
    pairs: Literal["labels", "judge"] = Field(
        "labels", description="who chose between the two responses of a pair: the labels, or the study's judge (sft, "
        "dpo and kto)",
    )  # fmt: skip
    reward: Literal["rules", "model"] = Field(
        "rules", description="what grades responses: the study's rewards, or its reward_model (RLHF)"
    )
    train_prompts: Literal["paired", "all"] | None = Field(
        None,
        description="instead of the study's train_prompts (methods that draw their own responses, and rft); paired "
        "prompts were chosen with the labels, all takes none",
    )

    @field_validator("train_prompts")
    @classmethod
    def _only_without_pairs(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("kind", "grpo") not in WITHOUT_PAIRS:
            raise ValueError(
                f"is for methods without pairs alone (grpo, em, rft …), {info.data['kind']} trains on pairs; remove it"
            )
        return value

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> "TrainedMethod":
        fits = {
            "backend": self.backend == "trl" or self.kind in ("sft", "dpo"),
            "target": self.target == "chosen" or (self.kind == "sft" and self.backend == "trl"),
            "pairs": self.pairs == "labels" or self.kind in OF_PAIRS,
            "reward": self.reward == "rules" or self.kind in REWARDED,
            "reference": self.reference is None or (self.start is not None and self.kind in WITH_REFERENCE),
        }
        for key, fit in fits.items():
            if not fit:
                raise ValueError(f"{key} {getattr(self, key)!r} does not fit a {self.kind} method{_WHERE[key]}")
        if self.start is not None and self.kind in WITH_REFERENCE and self.reference is None:
            raise ValueError(
                "reference is missing: a method that begins at another's end says whether its loss compares with base "
                "or parent"
            )
        return self

    def prompts_of(self, shared: Literal["paired", "all"]) -> Literal["paired", "all"]:
        """Which prompts it trains on in a study whose train_prompts are `shared`."""
        return (self.train_prompts or shared) if self.kind in WITHOUT_PAIRS else "paired"


_WHERE = {
    "backend": "; LLaMA-Factory trains sft and dpo here",
    "target": "; it is for sft that TRL trains",
    "pairs": "; only sft, dpo and kto train on pairs",
    "reward": "; only methods that weigh their own responses by rewards have one",
    "reference": "; it is for a method with `from` whose loss has a reference",
}


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


class MergedMethod(Strict):
    """The base plus a combination of what other runs of the same seed changed in it."""

    kind: Literal["merge"] = Field(description="a merge of other runs")
    how: Literal["linear", "slerp", "task_arithmetic", "ties", "dare"] = Field(
        description="linear: weighted mean of the updates; slerp: along the arc between two; task_arithmetic: weighted "
        "sum; ties: trimmed, signs elected, mean of those that agree; dare: random entries dropped, the rest rescaled, "
        "weighted sum"
    )
    of: list[Name] = Field(min_length=2, description="the methods that are merged")
    weights: list[Finite] | None = Field(
        None, description="one weight a method; empty: equal, summing to 1 (task_arithmetic, dare: 1 each)"
    )
    density: float = Field(0.2, gt=0, le=1, description="share of entries that ties and dare keep")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of dare's drops")

    @model_validator(mode="after")
    def _weights_fit(self) -> "MergedMethod":
        if len(set(self.of)) < len(self.of):
            raise ValueError("of: a method is named twice")
        if self.weights is not None and len(self.weights) != len(self.of):
            raise ValueError(f"weights: {len(self.weights)} for {len(self.of)} methods; give one each")
        if self.how == "slerp" and len(self.of) != 2:
            raise ValueError(f"of: slerp runs between two methods, {len(self.of)} are named")
        return self


class RewardModel(Strict):
    """A reward model trained on the preferences: the base with an adapter and a scalar head."""

    args: dict[str, object] = Field(
        default_factory=dict, description="arguments of transformers.TrainingArguments by their own names"
    )
    adapter: Adapter | None = Field(None, description="keys that differ from the study's adapter")
    seed: int = Field(0, ge=0, lt=2**32, description="training seed")


Trained = Annotated[TrainedMethod | EntropyMinimisation, Field(discriminator="kind")]
Method = Annotated[TrainedMethod | EntropyMinimisation | ExternalMethod | MergedMethod, Field(discriminator="kind")]


def rule_of(method: Method) -> str:
    """The rule, and so the script, that makes the runs of `method`."""
    if isinstance(method, ExternalMethod | MergedMethod):
        return "import_external" if isinstance(method, ExternalMethod) else "merge"
    if method.backend == "llamafactory":
        return "train_llamafactory"
    shared = dict.fromkeys((*GRPO, "rloo"), "grpo") | {"kto": "dpo"}
    return f"train_{shared.get(method.kind, method.kind)}"


def is_plain(method: Method) -> bool:
    """Whether it is a training in which only the objective is its own."""
    own = {"start", "target", "pairs", "reward", "backend", "adapter", "train_prompts"}
    fields = TrainedMethod.model_fields
    return isinstance(method, TrainedMethod) and all(getattr(method, key) == fields[key].default for key in own)


class Matched(Strict):
    """What all trainings of a study share, so that methods differ in the objective alone."""

    base: BaseModelConfig = Field(description="the model every method starts from")
    adapter: Adapter = Field(description="the adapter, where a method has none of its own")
    training: dict[str, object] = Field(description="trainer arguments shared by all methods")
    prompt: Prompt = Field(description="the study's prompt")
    question: str = Field(description="which of its questions the training set asks")
