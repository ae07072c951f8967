"""The study file: one YAML file, checked whole before any job is planned.

Trainer arguments (`methods.*.args`) pass through under TRL's own names; preflight checks them against TRL's classes.
"""

import difflib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationInfo, field_validator, model_validator

from memedynamics.milestones import label

Fraction = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Split = Literal["train", "val", "test"]
SPLITS: list[Split] = ["train", "val", "test"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
OWN_REWARDS = ("format", "accuracy")
READERS = Literal[
    "hateful_memes",
    "hateful_memes_fine",
    "harmeme",
    "mami",
    "pridemm",
    "multioff",
    "mmhs150k",
    "table",
    "huggingface",
    "pictograms",
]


class Strict(BaseModel):
    """Base of every section: no unknown keys, no silent changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(Strict):
    """One dataset: where its files are and how its rows read."""

    reader: READERS = Field(description="the format on disk")
    root: Path | None = Field(None, description="folder that holds the dataset's files and pictures")
    hub_id: str | None = Field(None, description="dataset id on the Hugging Face hub (reader huggingface)")
    revision: str | None = Field(None, description="commit of the hub dataset; required with hub_id")
    splits: dict[Split, str | int] = Field(
        default_factory=dict,
        description="per split its source: a file or split name; for pictograms the number of memes. "
        "Empty: the format's own split files",
    )
    columns: dict[Literal["id", "image", "text", "label", "groups"], str] = Field(
        default_factory=dict, description="column names of readers table and huggingface, where they differ"
    )
    labels: dict[str, Literal[0, 1]] = Field(
        default_factory=dict, description="raw label value: 0 benign or 1 hateful (readers table and huggingface)"
    )
    style: Literal["plain", "shifted"] = Field("plain", description="drawing style (reader pictograms)")
    question: str = Field("hateful", description="which of the prompt's questions this dataset asks")
    max_bad_share: Fraction = Field(0.01, description="stop when more than this share of the rows is bad")

    @model_validator(mode="after")
    def _has_a_source(self) -> "Dataset":
        if self.reader == "huggingface" and (self.root is None) == (self.hub_id is None):
            raise ValueError("give either root (a local folder) or hub_id")
        if self.hub_id is not None and self.revision is None:
            raise ValueError("hub_id needs a pinned revision (a commit of the hub repository)")
        if self.root is None and self.reader not in ("huggingface", "pictograms"):
            raise ValueError("root is missing: the folder with the dataset's files")
        return self


class DemoTraining(Strict):
    """How the embedded demo's tiny base model is made."""

    steps: PositiveInt = Field(600, description="optimiser steps")
    malformed: Fraction = Field(0.25, description="share of training targets that break the format")
    wrong: Fraction = Field(0.25, description="share of training targets with the wrong answer")
    seed: Seed = Field(0, description="seed of weights, targets and order")


class BaseModelConfig(Strict):
    """The instruct model every method starts from."""

    source: str = Field(description="hub id, local folder, or demo")
    revision: str | None = Field(None, description="commit of the hub repository; required for a hub id")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="dtype of the weights")
    attn_implementation: str = Field("sdpa", description="attention implementation in transformers")
    processor: dict[str, object] = Field(
        default_factory=dict, description="processor arguments by their own names, e.g. max_pixels"
    )
    demo: DemoTraining = Field(default_factory=DemoTraining, description="training of the demo's model")


class Sampling(Strict):
    """How responses are drawn: exact π by default, no truncation."""

    num_samples: PositiveInt = Field(8, description="responses a prompt (K)")
    max_new_tokens: PositiveInt = Field(512, description="response length at which sampling stops")
    temperature: Finite = Field(1.0, gt=0, description="softmax temperature; 1 samples from π itself")
    batch_size: PositiveInt = Field(8, description="prompts a batch; batches are cut at fixed ids")
    shards: PositiveInt = Field(1, description="jobs that share one split")
    seed: Seed = Field(0, description="seed of the sampling noise")


class Preferences(Strict):
    """How pairs are built from the base samples."""

    rule: Literal["paired", "seed"] = Field(
        "paired",
        description="paired: rejected is well-formed but wrong where there is one, else badly formed; "
        "seed: rejected is the lowest reward below 1",
    )


class Probes(Strict):
    """How many prompts of each split have their base samples scored by every policy."""

    train: PositiveInt | None = Field(1000, description="train prompts; empty for all")
    val: PositiveInt | None = Field(None, description="val prompts; empty for all")
    out_of_domain: PositiveInt | None = Field(1000, description="prompts of each out-of-domain dataset; empty for all")
    seed: Seed = Field(0, description="seed of the stratified choice")


class OwnSamples(Strict):
    """Which prompts every policy answers itself, as often as the base does: paired tests compare equal K."""

    milestones: PositiveInt = Field(250, description="val prompts at every milestone")
    final: list[Literal["val", "test", "out_of_domain"]] = Field(
        ["val", "test", "out_of_domain"], description="answered whole at the end of training"
    )


class Scoring(Strict):
    """How texts are scored; only speed and memory depend on it."""

    batch_size: PositiveInt = Field(8, description="prompts a batch")
    shards: PositiveInt = Field(1, description="jobs that share one run")
    chunk: PositiveInt = Field(1024, description="response positions whose logits are held at once")


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


class Study(Strict):
    """A whole study file."""

    study: Name = Field(description="name; results lie under results/<study>")
    base_model: BaseModelConfig = Field(description="the model every method starts from")
    prompt: Name = Field("think_answer", description="config/prompts/<prompt>.yaml, used everywhere in the study")
    datasets: dict[Name, Dataset] = Field(description="datasets by name")
    in_domain: Name = Field(description="the dataset with train, val and test")
    out_of_domain: list[Name] = Field(default_factory=list, description="datasets never trained on; split test")
    sampling: Sampling = Field(default_factory=Sampling, description="sampling of responses")
    rewards: dict[str, Finite] = Field(
        {"format": 0.1, "accuracy": 0.9}, description="weights of rewards; your own by dotted path"
    )
    preferences: Preferences = Field(default_factory=Preferences, description="building of pairs")
    probes: Probes = Field(default_factory=Probes, description="fixed texts to score")
    own_samples: OwnSamples = Field(default_factory=OwnSamples, description="what policies answer themselves")
    scoring: Scoring = Field(default_factory=Scoring, description="scoring of texts")
    train_prompts: Literal["paired", "all"] = Field(
        "paired",
        description="prompts of grpo: those that gave a pair, or all (breaks matching: warned); sft and dpo train on "
        "pairs and so always on the former",
    )
    adapter: Adapter = Field(default_factory=Adapter, description="adapter of all methods")
    training: dict[str, object] = Field(
        default_factory=dict, description="trainer arguments shared by all methods, by TRL's own names"
    )
    methods: dict[Name, Method] = Field(description="runs: recipes by name")
    seeds: list[Seed] = Field([1, 2, 3], description="training seeds")
    milestones: list[Fraction] = Field(
        [0, 0.0625, 0.125, 0.25, 0.5, 1], description="fractions of training that are saved and analysed"
    )
    resamples: PositiveInt = Field(2000, description="bootstrap resamples of every interval")
    strict_env: bool = Field(False, description="retrain when an environment pin changes")
    trial: bool = Field(False, description="64 memes, 8 steps, one seed, own results folder")

    @field_validator("out_of_domain")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice[0]!r} is listed more than once; name each dataset once")
        return names

    @field_validator("rewards")
    @classmethod
    def _rewards_exist(cls, rewards: dict[str, float]) -> dict[str, float]:
        if not rewards:
            raise ValueError("no reward is named; give at least one, as in accuracy: 1.0")
        for name in rewards:
            dotted = "." in name and all(part.isidentifier() for part in name.split("."))
            if name not in OWN_REWARDS and not dotted:
                near = difflib.get_close_matches(name, OWN_REWARDS, n=1, cutoff=0.0)[0]
                raise ValueError(f"no reward {name!r}; did you mean {near!r}? Your own is named module.function")
        return rewards

    @field_validator("methods")
    @classmethod
    def _methods_are_named(cls, methods: dict[str, Method]) -> dict[str, Method]:
        if not methods:
            raise ValueError("no method is named; give at least one, as in sft: {kind: sft}")
        if "base" in methods:
            raise ValueError("a method cannot be called 'base': that name is the base model's")
        return methods

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds) or not seeds:
            raise ValueError("must be one or more different integers")
        return seeds

    @field_validator("milestones")
    @classmethod
    def _milestones_rise(cls, fractions: list[float]) -> list[float]:
        if sorted(set(fractions)) != fractions or fractions[:1] != [0] or fractions[-1] != 1:
            raise ValueError("must rise from 0 to 1")
        labels = [label(fraction) for fraction in fractions]
        if twice := [name for name in labels if labels.count(name) > 1]:
            raise ValueError(f"two are both written {twice[0]} in six digits; leave one out")
        return fractions

    @model_validator(mode="after")
    def _datasets_agree(self) -> "Study":
        for name in [self.in_domain, *self.out_of_domain]:
            if name not in self.datasets:
                raise ValueError(f"dataset {name!r} is not under datasets ({', '.join(self.datasets)})")
        if self.in_domain in self.out_of_domain:
            raise ValueError(f"{self.in_domain!r} is in_domain and out_of_domain at once")
        roles = [(self.in_domain, "in_domain", SPLITS)]
        roles += [(name, "out_of_domain", ["test"]) for name in self.out_of_domain]
        for name, role, splits in roles:
            given = self.datasets[name].splits
            if missing := ", ".join(split for split in splits if given and split not in given):
                raise ValueError(
                    f"datasets.{name}.splits: has {', '.join(given)} alone; {role} needs {missing}, so add it"
                )
        return self
