"""What pydantic says of a faulty study file, in words that name the key, its value and the nearest valid one."""

import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from memedynamics.config import Study

# What the field has a name for and this project does under another, or not at all.
ELSEWHERE = {
    "ppo": "no trainer has PPO for vision-language models any more; use rloo or grpo with reward: model",
    "online_dpo": "TRL's trainer does not know pictures (docs/methods.md); use rloo or grpo with reward: model",
    "rlaif": "it is a kind of pairs; use kind: dpo with pairs: judge, and the section judge",
    "reward_model": "it is a section of its own; set reward_model, and use rloo or grpo with reward: model",
    "rlhf": "set the section reward_model, and use rloo or grpo with reward: model",
    "bottleneck": "PEFT has none; lora adapts the same layers",
}
# Keys whose value may be, or hold, a key of a server by mistake: no message repeats it.
HIDDEN = {"base_url", "key_variable"}


def explain(error: Mapping[str, object]) -> str:
    """One of pydantic's errors as a line: the key's full path, what is wrong, and the nearest valid name."""
    # Tags of the union over methods ("sft", "external") are no keys of the file.
    path = [str(part) for part in error["loc"] if part != "[key]"]
    if path[:1] == ["methods"] and len(path) > 2:
        del path[2]
    where = ".".join(path)
    if error["type"] == "union_tag_invalid":
        return f"{where}.kind: {_none_of(error['ctx']['tag'], error['ctx']['expected_tags'], 'kind ')}"
    if error["type"] == "union_tag_not_found":
        return f"{where}.kind: missing"
    if error["type"] == "extra_forbidden" and path[0] == "methods" and path[-1] == "prompt":
        return f"{where}: a study has one prompt, the same for all methods; set the top-level key prompt"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], _keys(path[:-1]), n=1)
        return f"{where}: unknown key{f'; did you mean {near[0]!r}?' if near else ''}"
    if error["type"] == "missing":
        return f"{where}: missing"
    if error["type"] == "literal_error" and isinstance(error["input"], str) and "'" in error["ctx"]["expected"]:
        return f"{where}: {_none_of(error['input'], error['ctx']['expected'])}"
    message = error["msg"].removeprefix("Value error, ")
    shown = not isinstance(error["input"], Mapping | BaseModel) and not HIDDEN & set(path)
    value = error["input"] if shown else None
    return f"{where + ': ' if where else ''}{message}{f' (found {value!r})' if value is not None else ''}"


def _none_of(word: str, listed: str, noun: str = "") -> str:
    """What to say of a `word` that is none of those that pydantic has `listed` in quotes."""
    if instead := ELSEWHERE.get(word.lower()):
        return f"no {noun}{word!r}: {instead}"
    valid = re.findall(r"'([^']+)'", listed)
    return f"no {noun}{word!r}; did you mean {_nearest(word.lower(), valid)!r}? There are {', '.join(valid)}"


def _nearest(word: str, valid: Sequence[str]) -> str:
    return min(valid, key=lambda one: (-difflib.SequenceMatcher(None, word, one).ratio(), _moved(word, one)))


def _moved(word: str, kind: str) -> bool:
    """Whether letters are missing or too many, and not merely in another order: breaks ties of likeness."""
    return sorted(word) != sorted(kind)


def _keys(path: list[str]) -> list[str]:
    """Valid keys of the section at `path`."""
    kinds: list[object] = [Study]
    for part in path:
        kinds = [inner for kind in kinds for inner in _inside(kind, part)]
    return [
        field.alias or key
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for key, field in kind.model_fields.items()
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
