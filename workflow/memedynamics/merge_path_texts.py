"""Which memes and responses the merge path is measured on: base samples of some of the probed val memes."""

from collections.abc import Mapping

import polars as pl

from memedynamics.errors import InputError
from memedynamics.keys import MEME
from memedynamics.probes import stratified
from memedynamics.prompts import Prompt
from memedynamics.scoring import Meme, meme


def chosen(
    probes: pl.DataFrame, data: pl.DataFrame, in_domain: str, count: int, prompt: Prompt, questions: Mapping[str, str]
) -> list[Meme]:
    """`count` of the val memes of `in_domain` that `probes` hold, stratified by label, with their base samples.

    Scoring reads the same texts. Raises InputError where `data` lacks a probed meme, and where there is none.
    """
    fixed = probes.filter(probe_kind="base_sample", dataset=in_domain, split="val")
    known = fixed.select(MEME).unique().join(data, on=MEME, how="left").sort(MEME)
    if lost := known.filter(pl.col("label").is_null()).select(MEME).rows():
        raise InputError(f"data: no row for {len(lost)} probed memes ({'/'.join(lost[0])} is the first); prepare anew")
    if known.is_empty():
        raise InputError(f"probes: no base sample of {in_domain}/val; let probes.val be at least 1")
    some = stratified(known, count, [*f"merge_path/{in_domain}".encode()]).sort(MEME)
    sources = {tuple(key): (image, text) for *key, image, text in some.select(*MEME, "image", "text").iter_rows()}
    rows = fixed.join(some, on=MEME, how="semi").sort(*MEME, "sample")
    return [meme(one, sources, prompt, questions) for one in rows.partition_by(MEME, maintain_order=True)]
