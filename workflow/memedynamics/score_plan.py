"""What a scoring job scores: passes over rows at some milestones, cut into batches of whole prompts."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from memedynamics import probes
from memedynamics.batching import cut
from memedynamics.errors import InputError
from memedynamics.keys import MEME
from memedynamics.preferences import Rule
from memedynamics.probe_pairs import pairs
from memedynamics.score_tables import KEYS

COLUMNS = [*KEYS, "token_ids", "chosen_sample", "rejected_sample"]


class Pass(NamedTuple):
    """Rows (COLUMNS) that are scored at the same milestones."""

    fractions: list[float]
    rows: pl.DataFrame


class Batch(NamedTuple):
    """Some prompts of a pass; `key` names its part files."""

    key: str
    fractions: list[float]
    prompts: list[pl.DataFrame]  # each one prompt's rows


def passes(
    texts: pl.DataFrame, own: pl.DataFrame | None, fractions: Sequence[float], one_at_a_time: bool, rule: Rule
) -> list[Pass]:
    """Fixed probes (`texts`) at every fraction, own samples (table `samples`) at the fraction whose policy drew them.

    `rule` says which base samples make a pair.
    `one_at_a_time` keeps the passes of a fraction together, for policies that are loaded whole.
    """
    fixed = with_pairs(texts, rule)
    groups = [[fraction] for fraction in fractions] if one_at_a_time else [list(fractions)]
    found = []
    for group in groups:
        found.append(Pass(group, fixed))
        drawn = [] if own is None else [Pass([f], own_rows(own.filter(pl.col("fraction") == f))) for f in group]
        found.extend(one for one in drawn if len(one.rows))
    return found


def with_pairs(texts: pl.DataFrame, rule: Rule = "paired") -> pl.DataFrame:
    """Probes (`texts`) with the samples that make each prompt's pair by `rule`, on base samples; empty where none."""
    paired = pairs(texts, rule).with_columns(probe_kind=pl.lit("base_sample"))
    return texts.join(paired, ["probe_kind", *MEME], "left", maintain_order="left").select(COLUMNS)


def of_parent(samples: pl.DataFrame, own: pl.DataFrame) -> pl.DataFrame:
    """What the parent of a run drew at its end, as fixed probes of kind parent_sample: schema `probes`.

    Of the memes that the run answers itself at every milestone (`own`, its samples), or at its end where it has no
    other. Raises InputError where the parent has answered none of them.
    """
    asked = own.filter(pl.col("fraction") == own["fraction"].min()).select(MEME).unique()
    drawn = samples.filter(pl.col("fraction") == samples["fraction"].max()).join(asked, MEME, "semi")
    if drawn.is_empty():
        raise InputError("samples: the run that this one began at answered none of the same memes; sample it anew")
    return drawn.with_columns(probe_kind=pl.lit("parent_sample")).select(probes.COLUMNS)


def own_rows(samples: pl.DataFrame) -> pl.DataFrame:
    """A policy's own samples as rows to score."""
    empty = pl.lit(None, pl.Int16)
    return samples.with_columns(probe_kind=pl.lit("own_sample"), chosen_sample=empty, rejected_sample=empty).select(
        COLUMNS
    )


def batches(found: Sequence[Pass], batch_size: int) -> list[Batch]:
    """The passes' prompts, sorted, in batches of at most `batch_size`, cut at fixed ids."""
    cut_up = []
    for number, (fractions, rows) in enumerate(found):
        prompts = rows.sort(*MEME, "probe_kind", "sample").partition_by(MEME, maintain_order=True)
        for place, batch in enumerate(cut(prompts, batch_size)):
            cut_up.append(Batch(f"{number:03d}-{place:05d}", fractions, batch))
    return cut_up


def sources(data: pl.DataFrame, found: Sequence[Batch]) -> dict[tuple[str, ...], tuple[str, str]]:
    """(image, text) of every meme (dataset, split, id) in the batches; InputError where `data` does not hold one."""
    known = {tuple(key): (image, text) for *key, image, text in data.select(*MEME, "image", "text").iter_rows()}
    wanted = [rows.select(MEME).row(0) for batch in found for rows in batch.prompts]
    if lost := sorted({key for key in wanted if key not in known}):
        raise InputError(
            f"data: no row for {len(lost)} scored memes ({'/'.join(lost[0])} is the first); prepare and sample anew"
        )
    return {key: known[key] for key in wanted}
