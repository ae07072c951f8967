"""What a judge is asked: which of two responses to a meme is better, 1 or 2."""

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from memedynamics.prompts import load_prompt

PLACES = ("{prompt}", "{one}", "{two}")


class JudgePrompt(BaseModel):
    """A judge's prompt file: the one message it is sent beside the picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="same as the file's name")
    user: str = Field(description="message with {prompt} (what the policy was asked), {one} and {two} (responses)")

    @field_validator("user")
    @classmethod
    def _has_every_place_once(cls, user: str) -> str:
        if unknown := sorted(set(re.findall(r"\{\w*\}", user)) - set(PLACES)):
            raise ValueError(f"nothing fills {', '.join(unknown)}; use {', '.join(PLACES)}")
        if wrong := [place for place in PLACES if user.count(place) != 1]:
            raise ValueError(f"{wrong[0]} must stand in it once, so that the judge sees the task and both responses")
        return user


def load_judge_prompt(path: Path) -> JudgePrompt:
    """The judge's prompt in the YAML file `path`; raises InputError naming file and key."""
    return load_prompt(path, JudgePrompt)


def judge_text(prompt: JudgePrompt, asked: str, one: str, two: str, blocks: Sequence[str]) -> str:
    """The words to the judge: `asked` is the policy's own message, `one` and `two` are responses to it.

    A response is data: of what may act as markup only the tags of the policy's format, `blocks`, keep their shape.
    """
    own = "|".join(f"/?{re.escape(block)}>" for block in blocks)
    kept = [re.sub(rf"<(?=[|/A-Za-z_])(?!{own})", "< ", text.strip()) for text in (one, two)]
    # In one pass: a response may spell a place of the prompt.
    filled = dict(zip(PLACES, (asked, *kept), strict=True))
    return re.sub("|".join(map(re.escape, PLACES)), lambda place: filled[place[0]], prompt.user)
