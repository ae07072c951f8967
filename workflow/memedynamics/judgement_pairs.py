"""What the analysis `judgement` counts of each judged pair: does the judge prefer the better response, in which order?

The better response is the one that alone is correct and well-formed; a pair may have none.
"""

import polars as pl

from memedynamics.errors import InputError
from memedynamics.gather import CURVE, MEME
from memedynamics.judged_pairs import CONSISTENT, TIE

KEYS = ["dataset", "id"]
SAMPLES = [*MEME, "sample", "correct", "format_ok"]
COLUMNS = ["present", "bias", "consistent", "mass", "tied", "paired", "graded", "agree", "p"]


def per_pair(judgements: pl.DataFrame, samples: pl.DataFrame) -> pl.DataFrame:
    """COLUMNS, pair_type, p_better_first, p_better_second of every pair by CURVE (the source as probe_kind) and MEME.

    `judgements`: its schema; `samples`: SAMPLES of the base. pair_type is empty where neither response is the better
    one. Raises InputError where a judged sample is missing.
    """
    marked, good = judgements, pl.col("correct") & pl.col("format_ok")
    for side in ("one", "two"):
        named = {f"sample_{side}": pl.col("sample"), f"good_{side}": good, f"format_{side}": pl.col("format_ok")}
        split = [pl.col("split")] if side == "one" else []
        marked = marked.join(samples.select(*KEYS, *split, **named), [*KEYS, f"sample_{side}"], "left")
    if lost := marked["format_one"].null_count() + marked["format_two"].null_count():
        raise InputError(f"judgements: {lost} judged responses are not among the samples; judge them anew")
    better = pl.col("good_one").cast(pl.Int8) - pl.col("good_two").cast(pl.Int8)  # 1 one, −1 two, 0 neither
    return _measured(marked.with_columns(better=better)).with_columns(
        method=pl.lit("judge"), seed=pl.lit(None, pl.Int32), fraction=pl.lit(0.0), probe_kind="source"
    ).select(*CURVE, *MEME, "pair_type", "p_better_first", "p_better_second", *COLUMNS)  # fmt: skip


def _measured(marked: pl.DataFrame) -> pl.DataFrame:
    ab, ba, one = pl.col("p_one_ab"), pl.col("p_one_ba"), pl.col("better") > 0
    graded, tied = pl.col("better") != 0, (pl.col("p_first") - 0.5).abs() <= TIE
    fails = pl.when(one).then("format_two").otherwise("format_one")
    paired = pl.col("id").is_in(marked.filter(source="labels")["id"].unique().implode())
    p = pl.when(one).then("p_first").otherwise(1 - pl.col("p_first"))
    found = marked.with_columns(
        pair_type=pl.when(graded & fails).then(pl.lit("wrong_answer")).when(graded).then(pl.lit("bad_format")),
        p_better_first=pl.when(one).then(ab).otherwise(ba),
        p_better_second=1 - pl.when(one).then(ba).otherwise(ab),
        p=p,
        agree=pl.when(tied).then(0.5).otherwise((p > 0.5).cast(pl.Float64)) * graded,
        consistent=CONSISTENT,
        present=pl.lit(1.0), bias=(ab + ba) / 2 - 0.5, tied=tied, graded=graded, paired=paired,
        mass=(pl.col("label_mass_ab") + pl.col("label_mass_ba")) / 2,
    )  # fmt: skip
    return found.with_columns(pl.col(*COLUMNS).cast(pl.Float64))
