"""From the study file's raw mapping to a checked `Study`, with errors that name key, value and nearest valid key."""

import re
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from memedynamics import lineage, modes
from memedynamics.config import Adapter, RewardModel, Study, TrainedMethod
from memedynamics.errors import InputError
from memedynamics.methods import ON_POLICY, EntropyMinimisation
from memedynamics.prompts import Prompt
from memedynamics.study_errors import explain

TRIAL_ROWS = 64
TRIAL_STEPS = 8
UNMATCHED = "methods are not matched: "


def load_study(raw: Mapping[str, object]) -> Study:
    """The checked study, each method's adapter whole; with `trial: true` its short version under its own name.

    Raises InputError: the first faulty key's full path, its value, and the nearest valid key where one is near.
    """
    try:
        study = Study.model_validate(dict(raw))
    except ValidationError as error:
        raise InputError("study file: " + "; ".join(explain(e) for e in error.errors()[:3])) from None
    _check_hub(study)
    study = study.model_copy(
        update={
            "methods": {name: _whole(method, study) for name, method in study.methods.items()},
            "reward_model": _whole(study.reward_model, study),
        }
    )
    lineage.check(study)
    _check_modes(study)
    return _trial(study) if study.trial else study


def plain(section: BaseModel) -> dict[str, object]:
    """A section as plain JSON values, defaults filled in: what a job is told and what Snakemake tracks."""
    return section.model_dump(mode="json")


def adapter_of(shared: Adapter, method: TrainedMethod | RewardModel) -> Adapter:
    """The adapter `method` trains: the study's, with the keys that the method sets itself.

    Options are merged one by one, and are the method's alone where its kind is another: they are arguments of that
    kind's class. An option set to null is the study's taken back. An alpha that neither sets is 2r of the merged r.
    """
    if method.adapter is None:
        return shared
    own = {key: getattr(method.adapter, key) for key in method.adapter.model_fields_set}
    options = (shared.options if own.get("kind", shared.kind) == shared.kind else {}) | method.adapter.options
    given = {name: value for name, value in options.items() if value is not None}
    return shared.model_copy(update=own | {"options": given})


def check_questions(study: Study, prompt: Prompt) -> None:
    """Raise InputError where a dataset in use asks a question that `prompt` does not have."""
    for name in [study.in_domain, *study.out_of_domain]:
        question = study.datasets[name].question
        if question not in prompt.questions:
            raise InputError(
                f"study file: datasets.{name}.question: prompt {prompt.name} has no question {question!r}; "
                f"use one of {', '.join(prompt.questions)}, or add it to the prompt's file"
            )


def warnings_of(study: Study) -> list[str]:
    """Where the study departs from matched methods and exact sampling: one line a difference, naming both keys."""
    trained = {name: method for name, method in study.methods.items() if isinstance(method, TrainedMethod)}
    lines = [
        UNMATCHED + line
        for name, method in trained.items()
        for line in [
            *_adapter_differences(study, name, method),
            *_prompt_differences(study, name, method),
            *_argument_differences(study, name, method),
            *_recipe_differences(name, method),
        ]
    ]
    lines += [UNMATCHED + line for key in ("bf16", "fp16") for line in _precision_differences(study, trained, key)]
    if study.sampling.temperature != 1:
        lines.append(
            f"sampling.temperature = {study.sampling.temperature:g}, not 1: responses are not drawn from the "
            "distribution whose likelihoods and KL are measured"
        )
    return lines


def _adapter_differences(study: Study, name: str, method: TrainedMethod) -> list[str]:
    own, shared = plain(method.adapter or study.adapter), plain(study.adapter)
    if own["alpha"] != shared["alpha"]:  # where both are empty, both follow their r
        own["alpha"], shared["alpha"] = own["alpha"] or 2 * own["r"], shared["alpha"] or 2 * shared["r"]
    return [
        f"methods.{name}.adapter.{key} = {value!r} but adapter.{key} = {shared[key]!r}"
        for key, value in own.items()
        if value != shared[key]
    ]


def _prompt_differences(study: Study, name: str, method: TrainedMethod) -> list[str]:
    """What a method that sees a few prompts is told, or one that sees all where another sees only those with a pair."""
    if isinstance(method, EntropyMinimisation) and method.prompts:
        return [f"methods.{name}.prompts = {method.prompts} but train_prompts = {_prompts(study, method)!r}"]
    pairs = [other for other, one in study.methods.items() if _prompts(study, one) == "paired"]
    if _prompts(study, method) != "all" or not pairs:
        return []
    if method.train_prompts not in (None, study.train_prompts):
        return [f"methods.{name}.train_prompts = 'all' but train_prompts = {study.train_prompts!r}"]
    return [f"train_prompts = 'all' reaches methods.{name}; on pairs only: {', '.join(pairs)}"]


def _prompts(study: Study, method: BaseModel) -> str | None:
    """Which prompts a method trains on; None where it is not trained here."""
    return method.prompts_of(study.train_prompts) if isinstance(method, TrainedMethod) else None


def _argument_differences(study: Study, name: str, method: TrainedMethod) -> list[str]:
    """Overrides of shared trainer arguments, and a temperature of the method's own."""
    lines = [
        f"methods.{name}.args.{key} = {value!r} but training.{key} = {study.training[key]!r}"
        for key, value in method.args.items()
        if key in study.training and not _same(value, study.training[key])
    ]
    where = f"methods.{name}.args" if "temperature" in method.args else "training"
    own = {**study.training, **method.args}.get("temperature")
    if method.kind in ON_POLICY and own is not None and not _same(own, study.sampling.temperature):
        lines.append(f"{where}.temperature = {own!r} but sampling.temperature = {study.sampling.temperature!r}")
    return lines


def _recipe_differences(name: str, method: TrainedMethod) -> list[str]:
    """Where a method begins, or learns from, something else than the others do."""
    departures = {
        "from": method.start and f"= {method.start!r} but base_model is where the others begin",
        "target": method.target != "chosen" and f"= {method.target!r} but preferences hold what the others learn from",
        "pairs": method.pairs == "judge" and "= 'judge' but preferences are paired by the labels for the others",
        "backend": method.backend != "trl"
        and f"= {method.backend!r} but the others are trained by TRL (backend = 'trl')",
    }
    return [f"methods.{name}.{key} {text}" for key, text in departures.items() if text]


def _precision_differences(study: Study, trained: Mapping[str, TrainedMethod], key: str) -> list[str]:
    """Methods whose `key` (bf16, fp16) differs from the first method's; overrides of training are named elsewhere."""
    if key in study.training or not trained:
        return []
    default = key == "bf16" and study.base_model.dtype == "bfloat16"
    (first, value), *others = ((name, method.args.get(key, default)) for name, method in trained.items())
    return [
        f"methods.{name}.args.{key} = {own!r} but methods.{first}.args.{key} = {value!r}"
        for name, own in others
        if not _same(own, value)
    ]


def _same(one: object, other: object) -> bool:
    """Whether two trainer arguments are equal; YAML reads 1e-5 as text."""
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return one == other


def _whole(method: BaseModel | None, study: Study) -> BaseModel | None:
    if not isinstance(method, TrainedMethod | RewardModel) or method.adapter is None:
        return method
    return method.model_copy(update={"adapter": adapter_of(study.adapter, method)})


def _check_modes(study: Study) -> None:
    """Raise InputError where what trains, a method or the reward model, cannot with its adapter and arguments."""
    trained = {f"methods.{name}": method for name, method in study.methods.items() if isinstance(method, TrainedMethod)}
    trained |= {"reward_model": study.reward_model} if study.reward_model else {}
    for name, method in trained.items():
        adapter, args = method.adapter or study.adapter, {**study.training, **method.args}
        try:
            modes.check(adapter, args)
            if isinstance(method, RewardModel):
                modes.check_grading(adapter.kind)
            elif method.backend == "llamafactory":
                modes.check_handed_over(method, adapter.kind, study.base_model)
                modes.check_own(args)
        except InputError as error:
            raise InputError(f"study file: {name}: {error}") from None


def _check_hub(study: Study) -> None:
    models = {"base_model": study.base_model, "judge.model": study.judge and study.judge.model}
    for key, source in models.items():
        named = source and source.source != "demo" and source.source
        looks_like_hub = named and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", named)
        if looks_like_hub and source.revision is None and not _exists(source.source):
            raise InputError(
                f"study file: {key}.revision is missing: {source.source!r} is not a folder here, and a hub id needs a "
                "pinned commit (the 40 hex digits on the model's page under 'Files and versions')"
            )


def _exists(path: str) -> bool:
    from pathlib import Path

    return Path(path).exists()


def _trial(study: Study) -> Study:
    """The whole DAG in short: 64 memes, 8 steps, one seed, its own results folder."""
    return study.model_copy(
        update={
            "study": f"{study.study}-trial",
            "seeds": study.seeds[:1],
            "training": study.training | {"max_steps": TRIAL_STEPS},
            "methods": {name: _short(method) for name, method in study.methods.items()},
            "reward_model": _short(study.reward_model),
        }
    )


def _short(method: BaseModel | None) -> BaseModel | None:
    if not isinstance(method, TrainedMethod | RewardModel):
        return method
    return method.model_copy(update={"args": {k: v for k, v in method.args.items() if k != "max_steps"}})
