"""Which pairs of responses are judged, and the words that the judge reads.

1. `drawn`: of every train prompt two base samples with different texts, chosen without the label: the first well-formed
   one, and the first well-formed one that answers otherwise, else the first badly formed one, else the first with
   another text. These are the contrasts that the label-based rule `paired` looks for, so where it finds two answers
   both rules pair the same two and differ in who chooses. A prompt with one text only has no pair.
2. `labels`: the pairs that the labels chose (`preferences`), the chosen first. The judge is not told: both orders are
   read. Agreement with the labels is measured on them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from memedynamics.errors import InputError
from memedynamics.judge_prompts import JudgePrompt, judge_text
from memedynamics.prompts import Prompt, user_text

KEYS = ["dataset", "id"]
SAMPLES = [*KEYS, "sample", "text", "answer", "format_ok"]
COLUMNS = [*KEYS, "source", "sample_one", "sample_two", "one", "two"]


class Pair(NamedTuple):
    """Two responses to a meme, as the judge reads them."""

    row: dict[str, object]  # dataset, id, source, sample_one, sample_two
    image: str
    ab: str  # the words with sample_one first
    ba: str  # the words with sample_two first


def drawn(samples: pl.DataFrame) -> pl.DataFrame:
    """The pairs (COLUMNS) drawn without the labels, one a prompt at most; `samples`: SAMPLES."""
    ranked = samples.sort(*KEYS, ~pl.col("format_ok"), "sample")
    first = ranked.unique(KEYS, keep="first", maintain_order=True)
    others = ranked.join(first, KEYS, suffix="_first").filter(pl.col("text") != pl.col("text_first"))
    otherwise = pl.col("answer") != pl.col("answer_first")
    order = [~(otherwise & pl.col("format_ok")), pl.col("format_ok"), ~otherwise, pl.col("sample")]
    other = others.sort(*KEYS, *order).unique(KEYS, keep="first", maintain_order=True)
    return other.select(
        *KEYS, source=pl.lit("drawn"), sample_one="sample_first", sample_two="sample", one="text_first", two="text"
    )


def labelled(preferences: pl.DataFrame) -> pl.DataFrame:
    """The pairs (COLUMNS) of the table `preferences`, the chosen response first."""
    return preferences.select(
        *KEYS,
        source=pl.lit("labels"),
        sample_one="chosen_sample",
        sample_two="rejected_sample",
        one="chosen",
        two="rejected",
    )


def pairs(
    samples: pl.DataFrame,
    preferences: pl.DataFrame,
    data: pl.DataFrame,
    prompt: Prompt,
    judge_prompt: JudgePrompt,
    question: str,
) -> list[Pair]:
    """All pairs to judge, by meme: `samples` of the base on train, `data` the memes of train.

    Raises InputError where a meme is missing from `data`, and where no prompt has two different responses.
    """
    found = drawn(samples)
    if found.is_empty():
        raise InputError(
            f"samples: all responses to each of {samples.select(KEYS).n_unique()} prompts are the same, so a judge has "
            "nothing to choose between; raise sampling.num_samples"
        )
    rows = pl.concat([found, labelled(preferences)]).sort(*KEYS, "source")
    rows = rows.join(data.select(*KEYS, "image", "text"), KEYS, "left", maintain_order="left")
    if lost := rows.filter(pl.col("image").is_null())["id"].unique().sort().to_list():
        raise InputError(f"data: no row for {len(lost)} judged memes ({lost[0]} is the first); prepare and sample anew")
    return [_pair(row, prompt, judge_prompt, question) for row in rows.to_dicts()]


def _pair(row: dict, prompt: Prompt, judge_prompt: JudgePrompt, question: str) -> Pair:
    asked = user_text(prompt, question, row["text"])

    def words(texts: Sequence[str]) -> str:
        return judge_text(judge_prompt, asked, *texts, prompt.blocks)

    key = {name: row[name] for name in COLUMNS[:-2]}
    return Pair(key, row["image"], words((row["one"], row["two"])), words((row["two"], row["one"])))
