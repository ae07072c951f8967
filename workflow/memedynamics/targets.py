"""What SFT learns to say, where it is not a sampled response: the bare right answer, or one that names the groups.

With `groups`, the first stage of a curriculum learns from fine-grained labels (protected categories and attack types,
Mathias et al. 2021) what a meme attacks, before the next stage learns to decide.
"""

from collections.abc import Sequence
from typing import Literal

import polars as pl

from memedynamics.errors import InputError
from memedynamics.keys import MEME
from memedynamics.prompts import Prompt

ATTACK = "attack:"


def targeted(
    rows: pl.DataFrame, data: pl.DataFrame, prompt: Prompt, target: Literal["chosen", "answer", "groups"]
) -> pl.DataFrame:
    """`rows` (examples.training_rows) with what `target` says in the column chosen; `data` holds labels and groups.

    Raises InputError where groups are asked for and no hateful meme names one, or the prompt has no block for them.
    """
    if target == "chosen":
        return rows
    if target == "groups" and len(prompt.blocks) < 2:
        raise InputError(f"methods: target groups needs a rationale, and prompt {prompt.name} has only an answer block")
    told = rows.join(data.select(MEME[-1], "groups"), on=MEME[-1], how="left", maintain_order="left")
    if target == "groups" and not told.filter(pl.col("label") == 1)["groups"].list.len().sum():
        raise InputError("methods: target groups, but no hateful training meme names a group; use another target")
    texts = [_response(prompt, label, groups if target == "groups" else None) for label, groups in _labels(told)]
    return rows.with_columns(chosen=pl.Series(texts, dtype=pl.String))


def _labels(told: pl.DataFrame) -> list[tuple[int, list[str]]]:
    return [(label, groups or []) for label, groups in told.select("label", "groups").iter_rows()]


def _response(prompt: Prompt, label: int, groups: Sequence[str] | None) -> str:
    """A response in the prompt's format, spaced as the prompts show it; without `groups` the answer block alone."""
    answer = f"<answer> {prompt.labels['yes' if label else 'no']} </answer>"
    if groups is None:
        return answer
    first, *others = prompt.blocks[:-1]
    blocks = [f"<{first}> {sentence(label, groups)} </{first}>", *(f"<{tag}> </{tag}>" for tag in others)]
    return "".join([*blocks, answer])


def sentence(label: int, groups: Sequence[str]) -> str:
    """Whom a meme attacks and how, in a sentence; groups of a benign meme are whom it shows."""
    if not label:
        return "It attacks nobody."
    attacked = ", ".join(name.replace("_", " ") for name in groups if not name.startswith(ATTACK))
    how = ", ".join(name.removeprefix(ATTACK).replace("_", " ") for name in groups if name.startswith(ATTACK))
    return f"It attacks {attacked or 'a group'}{f' by {how}' if how else ''}."
