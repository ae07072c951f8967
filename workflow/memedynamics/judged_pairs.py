"""Preference pairs that a judge chose, in the schema of those that the labels chose.

Of the pairs drawn without labels the better response is the one that the judge prefers over both orders. A tie, within
TIE of ½, gives no pair. A judge whose two orders name different winners still prefers one on average, and that pair
stays, as in RLAIF (Lee et al. 2309.00267): leaving it out would choose prompts by how sure the judge is.

A judge below LEAST_MASS or LEAST_CONSISTENCY hardly judges: its pairs are built all the same, with a warning.
"""

import logging

import polars as pl

from memedynamics.errors import InputError
from memedynamics.prompts import Prompt, user_text

KEYS = ["dataset", "id"]
TIE = 1e-6
LEAST_MASS = 0.01  # mean P("1") + P("2"): below it the judge would have written something else than a number
LEAST_CONSISTENCY = 0.2  # of pairs, same winner in both orders: a judge that guesses has ½, one that names a place 0
# One order names a response, the other the same: P("1") is above ½ in one of them alone.
CONSISTENT = (pl.col("p_one_ab") - 0.5) * (pl.col("p_one_ba") - 0.5) < 0

log = logging.getLogger(__name__)


def build(
    judgements: pl.DataFrame, samples: pl.DataFrame, data: pl.DataFrame, prompt: Prompt, question: str
) -> pl.DataFrame:
    """The pairs in the order of `data`: schema `preferences`, pair_type judge.

    `samples`: KEYS, sample, text and correct of the base samples that were judged. `num_correct` counts with the labels
    and is for description alone. Raises InputError where a judged sample or meme is missing, and where all are ties.
    Warns of a judge that hardly judges (`doubt`).
    """
    _warn(judgements.filter(pl.col("source") == "drawn"))
    judged = judgements.filter((pl.col("source") == "drawn") & ((pl.col("p_first") - 0.5).abs() > TIE))
    if judged.is_empty():
        raise InputError(
            f"judgements: the judge prefers neither response in all of {len(judgements)} pairs, so it chooses none; "
            "take another judge.model or judge.prompt"
        )
    one_better = pl.col("p_first") > 0.5
    sides = judged.select(
        *KEYS,
        chosen_sample=pl.when(one_better).then("sample_one").otherwise("sample_two"),
        rejected_sample=pl.when(one_better).then("sample_two").otherwise("sample_one"),
        pair_type=pl.lit("judge"),
    )
    counts = samples.group_by(KEYS).agg(num_correct=pl.col("correct").sum())
    prompts = pl.Series("prompt", [user_text(prompt, question, text) for text in data["text"]], dtype=pl.String)
    found = (
        data.select(*KEYS, prompts).join(sides, KEYS, maintain_order="left").join(counts, KEYS, maintain_order="left")
    )
    for role in ("chosen", "rejected"):
        texts = samples.select(*KEYS, pl.col("sample").alias(f"{role}_sample"), pl.col("text").alias(role))
        found = found.join(texts, [*KEYS, f"{role}_sample"], maintain_order="left")
    if len(found) < len(judged):
        raise InputError(
            f"judgements: {len(judged) - len(found)} of {len(judged)} pairs are of memes or samples that are not in "
            "data and samples; judge them anew"
        )
    return found


def doubt(mass: float, consistency: float) -> str | None:
    """Why a judge's preferences are worth little, if so: its mean label mass and its consistency against the floors."""
    found = []
    if mass < LEAST_MASS:
        found.append(f"its label mass is {mass:.2g} (least {LEAST_MASS:g})")
    if consistency < LEAST_CONSISTENCY:
        found.append(f"both orders name the same winner in {consistency:.0%} of pairs (least {LEAST_CONSISTENCY:.0%})")
    return f"the judge hardly judges: {' and '.join(found)}" if found else None


def _warn(drawn: pl.DataFrame) -> None:
    mass = pl.mean_horizontal("label_mass_ab", "label_mass_ba").mean()
    for numbers in drawn.select(mass, CONSISTENT.mean()).drop_nulls().rows():
        if text := doubt(*numbers):
            log.warning("%s; a method that trains on its pairs learns next to nothing of the memes", text)
