"""Preference pairs from the base model's own samples.

`paired` (the default): chosen is the first sample that is correct and well-formed; rejected the first that is
well-formed but wrong, and only where there is none the first badly formed one, so that a pair differs in the answer
wherever it can. `seed`: the source study's rule, rejected is the lowest reward of all that are below 1, which at its
weights (format .1, accuracy .9) are exactly those that are not both correct and well-formed. "First" is sample order.
"""

from typing import Literal, NamedTuple

import polars as pl

from memedynamics.errors import InputError
from memedynamics.prompts import Prompt, user_text

Rule = Literal["paired", "seed"]
KEYS = ["dataset", "id"]

_GOOD = pl.col("correct") & pl.col("format_ok")
_WORST_FIRST = {"paired": ~pl.col("format_ok"), "seed": pl.col("reward")}


class Pair(NamedTuple):
    """Which two samples of a prompt make its pair."""

    chosen_sample: int
    rejected_sample: int
    pair_type: str  # wrong_answer or bad_format


def pair(samples: pl.DataFrame, rule: Rule) -> Pair | str:
    """The pair that one prompt's base `samples` give, or the reason why there is none: no_chosen, no_rejected."""
    (row,) = outcomes(samples, rule).iter_rows(named=True)
    if row["outcome"] != "paired":
        return row["outcome"]
    return Pair(row["chosen_sample"], row["rejected_sample"], row["pair_type"])


def outcomes(samples: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """One row a prompt (dataset, id) in the order of `samples`, whether or not it gave a pair.

    Counts (num_samples, num_correct, num_format_ok), outcome (paired, no_chosen: none correct and well-formed,
    no_rejected: all are), and where paired chosen, rejected, their sample indices and pair_type.
    """
    counts = samples.group_by(KEYS, maintain_order=True).agg(
        num_samples=pl.len(), num_correct=pl.col("correct").sum(), num_format_ok=pl.col("format_ok").sum()
    )
    chosen = _first(samples.filter(_GOOD), "chosen", "sample")
    rejected = _first(samples.filter(~_GOOD), "rejected", _WORST_FIRST[rule], "sample")
    pair_type = pl.when("rejected_format_ok").then(pl.lit("wrong_answer")).otherwise(pl.lit("bad_format"))
    outcome = (
        pl.when(pl.col("chosen").is_null())
        .then(pl.lit("no_chosen"))
        .when(pl.col("rejected").is_null())
        .then(pl.lit("no_rejected"))
        .otherwise(pl.lit("paired"))
    )
    joined = counts.join(chosen, KEYS, "left", maintain_order="left").join(
        rejected, KEYS, "left", maintain_order="left"
    )
    return joined.with_columns(pair_type=pair_type, outcome=outcome)


def _first(samples: pl.DataFrame, role: str, *order: str | pl.Expr) -> pl.DataFrame:
    """Each prompt's first sample by `order`, as columns named after its `role`."""
    first = samples.sort(*KEYS, *order).unique(KEYS, keep="first", maintain_order=True)
    return first.select(
        *KEYS,
        pl.col("text").alias(role),
        pl.col("sample").alias(f"{role}_sample"),
        pl.col("format_ok").alias(f"{role}_format_ok"),
    )


def build(
    samples: pl.DataFrame, data: pl.DataFrame, rule: Rule, prompt: Prompt, question: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(preferences, outcomes) of every row of `data`, in its order; tables' schemas.

    Raises InputError when a meme has no samples, and when no prompt at all gave a pair, with the counts.
    """
    memes = data.select(*KEYS, "label", prompt=_prompts(data, prompt, question))
    found = memes.join(outcomes(samples, rule), KEYS, "left", maintain_order="left")
    if missing := found.filter(pl.col("outcome").is_null())["id"].to_list():
        raise InputError(f"samples: none for {len(missing)} memes (id {missing[0]!r} is the first); sample them again")
    pairs = found.filter(pl.col("outcome") == "paired")
    if pairs.is_empty():
        raise InputError(f"preferences: {_why_none(found)}")
    columns = ["prompt", "chosen", "rejected", "chosen_sample", "rejected_sample", "pair_type", "num_correct"]
    counts = ["label", "outcome", "num_samples", "num_correct", "num_format_ok"]
    return pairs.select(*KEYS, *columns), found.select(*KEYS, *counts)


def _prompts(data: pl.DataFrame, prompt: Prompt, question: str) -> pl.Series:
    return pl.Series([user_text(prompt, question, text) for text in data["text"]], dtype=pl.String)


def _why_none(found: pl.DataFrame) -> str:
    count = {name: (found["outcome"] == name).sum() for name in ("no_chosen", "no_rejected")}
    wrong, malformed = (int((found[column] == 0).sum()) for column in ("num_correct", "num_format_ok"))
    return (
        f"none of {len(found)} prompts gave a pair: {count['no_chosen']} without a correct, well-formed sample "
        f"(all samples wrong: {wrong}, all badly formed: {malformed}), {count['no_rejected']} with nothing but those; "
        "raise sampling.num_samples, or take a base model or a prompt whose answers vary and keep the format"
    )
