"""One prompt a study: how a meme becomes messages, the same in sampling, training and scoring."""

import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from memedynamics.errors import InputError

Tag = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^<>]*$")]


class Prompt(BaseModel):
    """A prompt file: the user's message, the questions by dataset, and the format a response must keep."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="same as the file's name")
    questions: dict[str, str] = Field(description="the question a dataset asks, by key", min_length=1)
    user: str = Field(description="message with {question} and, optionally, {text}")
    blocks: list[Tag] = Field(description="tags of a well-formed response, in order; the last is answer")
    labels: dict[Literal["yes", "no"], Words] = Field(
        description="how yes and no are written", default={"yes": "Yes", "no": "No"}
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> "Prompt":
        if unknown := sorted(set(re.findall(r"\{\w*\}", self.user)) - {"{question}", "{text}"}):
            raise ValueError(f"user: nothing fills {', '.join(unknown)}; use {{question}} and {{text}}")
        if "{question}" not in self.user:
            raise ValueError("user: {question} is missing, so no dataset's question would be asked")
        if self.blocks[-1:] != ["answer"] or len(set(self.blocks)) < len(self.blocks):
            raise ValueError("blocks: each tag once, the last one answer")
        if len({word.casefold() for word in self.labels.values()}) < 2:
            raise ValueError("labels: give yes and no a word each, different whatever their case")
        return self


Kind = TypeVar("Kind", bound=BaseModel)


def load_prompt(path: Path, kind: type[Kind] = Prompt) -> Kind:
    """The prompt of this `kind` in the YAML file `path`; raises InputError naming file and key."""
    path = Path(path)
    try:
        # BaseLoader keeps every scalar a string: to YAML 1.1 an unquoted `yes:` is the key true.
        prompt = kind.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader))
    except FileNotFoundError as error:
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise InputError(f"{path}: no such prompt; there are {', '.join(known)}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = [".".join(map(str, first["loc"]))] if first["loc"] else []
        raise InputError(f"{path}: {': '.join([*where, first['msg'].removeprefix('Value error, ')])}") from error
    if prompt.name != path.stem:
        raise InputError(f"{path}: name: is {prompt.name!r}; it must be the file's name, {path.stem!r}")
    return prompt


def user_text(prompt: Prompt, question: str, text: str) -> str:
    """The user's words about a meme with caption `text`; `question` is a key of `prompt.questions`."""
    if question not in prompt.questions:
        raise InputError(f"prompt {prompt.name} has no question {question!r}; it has {', '.join(prompt.questions)}")
    # A caption is data: "<|im_end|>", "<image>" or "<answer>" in it must not act as what they spell.
    text = re.sub(r"<(?=[|/A-Za-z_])", "< ", text)
    # Not str.format: a caption may hold braces.
    return prompt.user.replace("{question}", prompt.questions[question]).replace("{text}", text)


def messages(content: str) -> list[dict[str, object]]:
    """The chat of one picture followed by `content`, as processors' chat templates take it."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": content}]}]
