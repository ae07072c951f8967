"""The study file: one YAML file, checked whole before any job is planned. Its parts: `sections` and `methods`.

Trainer arguments (`methods.*.args`) pass through under TRL's own names; preflight checks them against TRL's classes.
"""

import difflib
from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from memedynamics.methods import Adapter, ExternalMethod, MergedMethod, Method, RewardModel, TrainedMethod
from memedynamics.milestones import label
from memedynamics.sections import (
    Attention,
    BaseModelConfig,
    Dataset,
    DemoTraining,
    Finite,
    Fraction,
    Gradients,
    Judge,
    Launch,
    MergePath,
    Name,
    OwnSamples,
    Preferences,
    Probes,
    Report,
    Sampling,
    Scoring,
    Seed,
    Server,
    Sharpe,
    Spectrum,
    Split,
    Strict,
)  # fmt: skip

__all__ = [
    "Adapter", "Attention", "BaseModelConfig", "Dataset", "DemoTraining", "ExternalMethod", "Gradients", "Judge",
    "Launch", "MergePath", "MergedMethod", "Method", "OwnSamples", "Preferences", "Probes", "Report", "RewardModel",
    "Sampling", "Scoring", "Server", "Sharpe", "Spectrum", "Split", "Study", "TrainedMethod",
]  # fmt: skip

SPLITS: list[Split] = ["train", "val", "test"]
OWN_REWARDS = ("format", "accuracy")


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
        description="prompts of methods that draw their own responses, and of rft: those that gave a pair, which takes "
        "the labels, or all (breaks matching: warned); sft, dpo and kto always train on the former",
    )
    sharpe: Sharpe = Field(default_factory=Sharpe, description="analysis sharpe")
    attention: Attention = Field(default_factory=Attention, description="analysis attention")
    gradients: Gradients = Field(default_factory=Gradients, description="analysis gradients")
    spectrum: Spectrum = Field(default_factory=Spectrum, description="analysis spectrum")
    merge_path: MergePath = Field(default_factory=MergePath, description="analysis merge_path")
    report: Report = Field(default_factory=Report, description="what the report shows")
    adapter: Adapter = Field(default_factory=Adapter, description="adapter of all methods")
    training: dict[str, object] = Field(
        default_factory=dict, description="trainer arguments shared by all methods, by TRL's own names"
    )
    launch: Launch = Field(default_factory=Launch, description="processes that share each training of methods")
    judge: Judge | None = Field(None, description="AI feedback: who chooses for methods with pairs: judge")
    reward_model: RewardModel | None = Field(None, description="RLHF: what grades for methods with reward: model")
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
    def _server_is_named(self) -> "Study":
        if self.sampling.engine == "openai" and self.sampling.server is None:
            raise ValueError("sampling.server is missing: engine openai needs its base_url")
        return self

    @model_validator(mode="after")
    def _graders_exist(self) -> "Study":
        if self.judge and self.judge.model and self.judge.model.source == "demo":
            raise ValueError("judge.model.source: the demo's model is the base_model's alone; leave judge.model empty")
        for name, method in self.methods.items():
            if getattr(method, "pairs", "labels") == "judge" and self.judge is None:
                raise ValueError(f"methods.{name}.pairs is judge, but the study has no judge; add the section judge")
            if getattr(method, "reward", "rules") == "model" and self.reward_model is None:
                raise ValueError(f"methods.{name}.reward is model, but there is none; add the section reward_model")
        return self

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
