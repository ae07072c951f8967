"""Which memes an attention job looks at, with what behind each prompt, and in which passes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from transformers import PreTrainedTokenizerBase

from memedynamics import answers, segments
from memedynamics.batching import cut
from memedynamics.config import Attention
from memedynamics.errors import InputError
from memedynamics.images import open_image
from memedynamics.keys import MEME
from memedynamics.looking import Meme, Policy
from memedynamics.perturbations import Key, Swap, fitted
from memedynamics.probes import stratified
from memedynamics.prompts import Prompt

COLUMNS = [*MEME, "label", "image", "text"]


class Batch(NamedTuple):
    """Some memes (COLUMNS, token_ids, kept) and who looks at them; `key` names its part file."""

    key: str
    policies: Sequence[Policy]
    memes: pl.DataFrame


def chosen(data: pl.DataFrame, samples: pl.DataFrame, settings: Attention) -> pl.DataFrame:
    """`settings.memes` of every split of `data`, sorted: COLUMNS, token_ids (of base sample 0) and kept.

    Raises InputError where the base gave a meme no sample 0.
    """
    splits = data.sort(MEME).partition_by("dataset", "split", maintain_order=True)
    rooms = np.diff(np.arange(len(splits) + 1) * settings.kept // len(splits))
    found = pl.concat(_split(memes, settings.memes, int(room)) for memes, room in zip(splits, rooms, strict=True))
    first = samples.filter(pl.col("sample") == 0).select(*MEME, "token_ids")
    found = found.join(first, MEME, "left").sort(MEME)
    lost = found.filter(pl.col("token_ids").is_null())
    if len(lost):
        raise InputError(
            f"samples of the base: no sample 0 for {len(lost)} memes ({'/'.join(lost.select(MEME).row(0))} is the "
            "first); sample the base anew"
        )
    return found


def _split(memes: pl.DataFrame, size: int, room: int) -> pl.DataFrame:
    seed = [*f"attention/{memes['dataset'][0]}/{memes['split'][0]}".encode()]
    some = stratified(memes, size, seed)
    return some.select(COLUMNS).with_columns(kept=pl.col("id").is_in(stratified(some, room, seed)["id"].to_list()))


def batches(memes: pl.DataFrame, policies: Sequence[Policy], size: int, one_at_a_time: bool) -> list[Batch]:
    """`memes` in batches of `size`; `one_at_a_time` takes a pass for each policy, as full weights want."""
    passes = [[policy] for policy in policies] if one_at_a_time else [list(policies)]
    # Pictures of a kind have like prompts: neighbours in the order of their ids need no sorting by length.
    return [
        Batch(f"{number:03d}-{place:05d}", some, batch)
        for number, some in enumerate(passes)
        for place, batch in enumerate(cut(memes, size))
    ]


def reader(
    data: pl.DataFrame,
    swaps: Mapping[Key, Swap],
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    questions: Mapping[str, str],
    ends: Collection[int],
) -> Callable[[dict], Meme]:
    """A function from a row of `chosen` to the meme, pictures opened. `questions`: the question by dataset."""
    paths = {row[:3]: Path(row[3]) for row in data.select(*MEME, "image").iter_rows()}

    def read(row: dict) -> Meme:
        key = tuple(row[name] for name in MEME)
        image, swap = open_image(paths[key]), swaps.get(key)
        return Meme(
            key=key,
            label=row["label"],
            parts=segments.parts(prompt, questions[row["dataset"]], row["text"]),
            image=image,
            swap=swap and (swap.kind, fitted(open_image(paths[swap.meme]), image.size)),
            rationale=answers.context(row["token_ids"], tokenizer, prompt, ends).tokens,
            kept=row["kept"],
        )

    return read
