"""Grades of drawn responses. Apart from drawing, so that a new reward or weight grades anew and draws nothing."""

import polars as pl

from memedynamics import rewards
from memedynamics.errors import InputError
from memedynamics.prompts import Prompt

MEME = ["dataset", "split", "id"]


def graded(drawn: pl.DataFrame, memes: pl.DataFrame, weights: dict[str, float], prompt: Prompt) -> pl.DataFrame:
    """`drawn` (schema `drawn`) with answer, format_ok, correct and reward: schema `samples`.

    `memes`: schema `data`; `weights` of the study's rewards. Raises InputError when the meme of a response is missing.
    """
    rows = drawn.join(memes.select(*MEME, "label", caption="text"), MEME, "left", maintain_order="left")
    if lost := rows.filter(pl.col("label").is_null()).select(MEME).unique().sort(MEME).rows():
        raise InputError(f"data: no row for {len(lost)} answered memes ({'/'.join(lost[0])} is the first); sample anew")
    texts, labels = rows["text"].to_list(), rows["label"].to_list()
    grades = [rewards.grade(text, label, prompt) for text, label in zip(texts, labels, strict=True)]
    given = dict(zip(rewards.COLUMNS, (rows["id"].to_list(), labels, rows["caption"].to_list()), strict=True))
    columns = {name: [getattr(grade, name) for grade in grades] for name in ("answer", "format_ok", "correct")}
    reward = rewards.total(texts, weights, prompt, **given)
    typed = pl.DataFrame(
        {**columns, "reward": reward},
        schema={"answer": pl.String, "format_ok": pl.Boolean, "correct": pl.Boolean, "reward": pl.Float64},
    )
    return rows.drop("label", "caption").hstack(typed)
