"""From the study file's raw mapping to a checked `Study`, with errors that name key, value and nearest valid key."""

import difflib
import re
import types
import typing
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from memedynamics.config import Study, TrainedMethod
from memedynamics.errors import InputError

TRIAL_ROWS = 64
TRIAL_STEPS = 8


def load_study(raw: Mapping[str, object]) -> Study:
    """The checked study; with `trial: true` its short version under its own name.

    Raises InputError: the first faulty key's full path, its value, and the nearest valid key where one is near.
    """
    try:
        study = Study.model_validate(dict(raw))
    except ValidationError as error:
        raise InputError("study file: " + "; ".join(_explain(e, raw) for e in error.errors()[:3])) from None
    _check_hub(study)
    return _trial(study) if study.trial else study


def plain(section: BaseModel) -> dict[str, object]:
    """A section as plain JSON values, defaults filled in: what a job is told and what Snakemake tracks."""
    return section.model_dump(mode="json")


def warnings_of(study: Study) -> list[str]:
    """Where methods of the study are not matched: one line a difference, naming both keys."""
    lines = []
    for name, method in study.methods.items():
        if not isinstance(method, TrainedMethod):
            continue
        own = method.adapter
        for key in own.model_fields_set if own else ():
            ours, theirs = getattr(own, key), getattr(study.adapter, key)
            if ours != theirs:
                lines.append(
                    f"methods are not matched: methods.{name}.adapter.{key} = {ours!r} but adapter.{key} = {theirs!r}"
                )
        if method.train_prompts not in (None, study.train_prompts):
            lines.append(
                f"methods are not matched: methods.{name}.train_prompts = {method.train_prompts!r}"
                f" but train_prompts = {study.train_prompts!r}"
            )
    return lines


def _check_hub(study: Study) -> None:
    source = study.base_model
    looks_like_hub = source.source != "demo" and re.fullmatch(r"[\w.-]+/[\w.-]+", source.source)
    if looks_like_hub and source.revision is None and not _exists(source.source):
        raise InputError(
            f"study file: base_model.revision is missing: {source.source!r} is not a folder here, and a hub id needs a "
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
        }
    )


def _short(method: BaseModel) -> BaseModel:
    if not isinstance(method, TrainedMethod):
        return method
    return method.model_copy(update={"args": {k: v for k, v in method.args.items() if k != "max_steps"}})


def _explain(error: dict, raw: Mapping[str, object]) -> str:
    # Tags of the union over methods ("sft", "external") are no keys of the file.
    path = [str(part) for part in error["loc"]]
    if path[:1] == ["methods"] and len(path) > 2:
        del path[2]
    where = ".".join(path)
    if error["type"] == "extra_forbidden" and path[0] == "methods" and path[-1] == "prompt":
        return f"{where}: a study has one prompt, the same for all methods; set the top-level key prompt"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], _keys(path[:-1]), n=1)
        return f"{where}: unknown key{f'; did you mean {near[0]!r}?' if near else ''}"
    if error["type"] == "missing":
        return f"{where}: missing"
    message = error["msg"].removeprefix("Value error, ")
    value = error["input"] if not isinstance(error["input"], Mapping | BaseModel) else None
    return f"{where + ': ' if where else ''}{message}{f' (found {value!r})' if value is not None else ''}"


def _keys(path: list[str]) -> list[str]:
    """Valid keys of the section at `path`."""
    kinds: list[object] = [Study]
    for part in path:
        kinds = [inner for kind in kinds for inner in _inside(kind, part)]
    return [
        key for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel) for key in kind.model_fields
    ]


def _inside(kind: object, key: str) -> list[object]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        found = kind.model_fields.get(key)
        return _models(found.annotation) if found else []
    return _models(typing.get_args(kind)[1]) if typing.get_origin(kind) is dict else []


def _models(annotation: object) -> list[object]:
    """The section types inside an annotation: through Annotated, Optional and unions, dicts kept whole."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _models(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [inner for argument in typing.get_args(annotation) for inner in _models(argument)]
    return [annotation]
