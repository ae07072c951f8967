"""The data of the memes browser: an index of all memes, which a page loads first, and pieces of what the runs answered.

1. The index holds what lists, filters and search need, column by column; its `runs` are policies, each run at each of
   its milestones. Pieces hold PIECE memes of one policy each, and are read when one of these memes is looked at;
   `index.runs[…].key`/<piece> is a piece's name. Of memes without an answer alone there is no piece.
2. Memes are numbered in the order of the data's tables. Listed are those that a run has answered, which at its end are
   all of them and at other milestones a choice; `splits` says how many of each split that is.
3. Distances are in thousandths of a nat, probabilities in thousandths, attention in 1/10,000.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import polars as pl
from tokenizers import Tokenizer

from memedynamics import meme_flags, meme_tokens
from memedynamics.errors import InputError
from memedynamics.keys import MEME
from memedynamics.meme_flags import Policy
from memedynamics.thumbnails import DIGITS

PIECE = 100  # memes
LETTERS = {"yes": "y", "no": "n", "invalid": "-"}

Counts = Mapping[Policy, pl.DataFrame]


def listed(data: pl.DataFrame, counts: Counts) -> pl.DataFrame:
    """The memes of `data` (MEME, …) that a run other than the base has answered, with their `number`.

    `counts`: `meme_answers.counts` of every policy, the base first.
    """
    answered = pl.concat([frame.select(MEME) for frame in list(counts.values())[1:]]).unique()
    return data.join(answered, MEME, "semi", maintain_order="left").with_row_index("number")


def index(memes: pl.DataFrame, data: pl.DataFrame, counts: Counts, looked: pl.DataFrame) -> dict:
    """The index of `memes` (`listed`) out of `data`; `looked`: MEME of those that attention was read for."""
    groups = sorted({group for some in memes["groups"] for group in some})
    places = {group: place for place, group in enumerate(groups)}
    looked = looked.select(MEME).unique().with_columns(seen=True)
    seen = memes.join(looked, MEME, "left", maintain_order="left")["seen"].fill_null(False)
    return {
        "piece": PIECE,
        "splits": _splits(memes, data),
        "ids": memes["id"].to_list(),
        "texts": memes["text"].to_list(),
        "labels": "".join(map(str, memes["label"])),
        "groups": groups,
        "grouped": [[places[group] for group in some] for some in memes["groups"]],
        "pictures": [digest[:DIGITS] for digest in memes["image_sha256"]],
        "looked": "".join("01"[has] for has in seen),
        "flags": _flags(memes, counts),
    }


def _splits(memes: pl.DataFrame, data: pl.DataFrame) -> list[dict]:
    """Dataset, split, how many memes it has and how many are listed, in the order of their numbers."""
    keys = ["dataset", "split"]
    shown = memes.group_by(keys).len("listed")
    whole = data.filter(pl.col("split") != "train").group_by(keys, maintain_order=True).len("memes")
    return whole.join(shown, keys, "left", maintain_order="left").with_columns(pl.col("listed").fill_null(0)).to_dicts()


def _flags(memes: pl.DataFrame, counts: Counts) -> list[str]:
    found = [memes.select(MEME).join(frame, MEME, "left", maintain_order="left") for frame in counts.values()]
    answered = np.stack([frame["answers"].is_not_null().to_numpy() for frame in found])
    most = [
        np.stack([(2 * frame[name] > frame["answers"]).fill_null(False).to_numpy() for frame in found])
        for name in ("right", "well_formed")
    ]
    bits = meme_flags.flags(list(counts), *most, answered)
    return [meme_flags.written(*row) for row in zip(bits, answered, strict=True)]


def pieces(
    memes: pl.DataFrame, given: Sequence[pl.DataFrame], tokenizer: Tokenizer
) -> Iterator[tuple[int, list[dict | None]]]:
    """A policy's pieces, number and content: of each meme what `given` say of it, or None where it was not answered.

    `given`: one milestone of `meme_answers.every`.
    """
    found = memes.select("number", *MEME)
    for frame in given:
        found = found.join(frame, MEME, "left", maintain_order="left")
    for number, part in enumerate(found.iter_slices(PIECE)):
        if part["token_ids"].count():
            rows = part.to_dicts()
            yield number, [_answered(row, tokenizer) if row["token_ids"] is not None else None for row in rows]


def _answered(row: Mapping, tokenizer: Tokenizer) -> dict:
    own = meme_tokens.cut(row["token_ids"], tokenizer)
    found = {
        "text": own.text,
        "lengths": own.lengths,
        "answers": "".join(LETTERS[answer] for answer in row["answer"]),
        "right": "".join("01"[right] for right in row["correct"]),
        "kept": "".join("01"[kept] for kept in row["format_ok"]),
        "p": row["p_hateful"],
        "cut": row["finish_reason"] == "length",
        "forced": row["forced"],
    }
    for name in ("kl_own", "kl_own_sum", "kl_base", "kl_base_sum", "p_on_base", "cells"):
        if row.get(name) is not None:
            found[name] = row[name]
    if len(found.get("kl_own", own.lengths)) != len(own.lengths):
        raise InputError(f"traces of {'/'.join(row[key] for key in MEME)}: not of its samples' tokens; score anew")
    return found
