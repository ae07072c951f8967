"""What the runs answered to each meme, for the memes browser: from samples, traces, responses and attention extracts.

All is lazily filtered before it is read, since traces are larger than memory, and once for all milestones of a run.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from memedynamics import attention_frames, gather
from memedynamics.keys import MEME
from memedynamics.meme_runs import Sources
from memedynamics.perturbations import CLEAN

KEYS = ["fraction", *MEME]
FIRST = pl.col("sample") == 0
THOUSAND = 1000  # probabilities and nats are written in thousandths


def counts(samples: Sequence[Path]) -> dict[float, pl.DataFrame]:
    """By milestone a row a meme that the run answered: `answers`, how many of them are `right` and `well_formed`."""
    table = gather.scan(samples, "samples")
    sums = [pl.col("correct").sum().alias("right"), pl.col("format_ok").sum().alias("well_formed")]
    found = table.group_by(KEYS).agg(pl.len().alias("answers"), *sums).collect(engine="streaming")
    return _by_milestone(gather.finite_sums(found, samples, "samples"))


def answers(samples: Sequence[Path]) -> pl.DataFrame:
    """A row a milestone and meme: the first response (`token_ids`, `finish_reason`, `forced`), and lists over all.

    The lists, by sample: `answer`, `correct`, `format_ok`, and `p_hateful` in thousandths.
    """
    table = gather.scan(samples, "samples")
    lists = [pl.col(name).sort_by("sample") for name in ("answer", "correct", "format_ok")]
    lists.append(_thousandths("p_hateful").sort_by("sample"))
    lists = table.group_by(KEYS).agg(*lists)
    first = table.filter(FIRST).select(*KEYS, "token_ids", "finish_reason", "forced")
    return _strings(lists.join(first, on=KEYS, how="left")).collect(engine="streaming")


def distances(traces: Sequence[Path]) -> pl.DataFrame:
    """A row a milestone and meme: lists of per-token KL in thousandths of a nat, of the first response of each kind.

    `kl_own`: KL(π‖π0) on the run's own response; `kl_base`: KL(π0‖π) on the base's; `…_sum`: the whole response's,
    which those of its tokens, rounded, do not add up to. Empty where one is not scored.
    """
    own = pl.col("probe_kind") == "own_sample"
    table = gather.scan(traces, "traces").filter(FIRST & pl.col("probe_kind").is_in(["own_sample", "base_sample"]))
    table = table.filter(pl.col("split") != "train")
    kl = pl.when(own).then("kl_reverse").otherwise("kl_forward")
    rows = table.select(*KEYS, "position", own.alias("own"), kl=kl * THOUSAND)
    columns = []
    for name, chosen in (("kl_own", pl.col("own")), ("kl_base", ~pl.col("own"))):
        some = pl.col("kl").filter(chosen)
        tokens = some.sort_by(pl.col("position").filter(chosen)).round().cast(pl.Int32)
        whole = some.cast(pl.Float64).sum().round().cast(pl.Int32)
        columns += [tokens.alias(name), pl.when(some.count() > 0).then(whole).alias(f"{name}_sum")]
    found = _strings(rows.group_by(KEYS).agg(*columns)).collect(engine="streaming")
    return found.with_columns(
        pl.when(pl.col(name).list.len() > 0).then(name).alias(name) for name in ("kl_own", "kl_base")
    )


def on_base(responses: Sequence[Path]) -> pl.DataFrame:
    """A row a milestone and meme: `p_on_base`, the run's P(yes) after the base's first response, in thousandths."""
    table = gather.scan(responses, "responses").filter(FIRST, pl.col("split") != "train", probe_kind="base_sample")
    return _strings(table.select(*KEYS, _thousandths("p_hateful").alias("p_on_base"))).collect(engine="streaming")


def looks(extracts: Sequence[Path]) -> pl.DataFrame:
    """A row a milestone and meme that attention was read for: `cells`, its share on each of the picture's 4×4 cells.

    In 1/10,000, of the prompt's last token on the clean picture, mean over heads and layers.
    """
    table = gather.scan(extracts, "extract_attention")
    table = table.filter(perturbation=CLEAN, head="mean", policy="trained")
    cells = pl.concat_list((pl.col(cell) * 10 * THOUSAND).round().cast(pl.Int32) for cell in attention_frames.CELLS)
    return attention_frames.over_layers(table).select("fraction", pl.col(MEME).cast(pl.String), cells=cells)


def every(of: Sources) -> dict[float, list[pl.DataFrame]]:
    """By milestone what a run's files say of each meme: `answers`, and where there are any the other frames of it.

    They are `distances`, `on_base` and `looks`; a milestone without answers is none.
    """
    found = [answers(of.samples)]
    found += [distances(of.traces), on_base(of.responses)] if of.traces else []
    found += [looks(of.attention)] if of.attention else []
    own, *others = map(_by_milestone, found)
    return {at: [frame, *(other[at] for other in others if at in other)] for at, frame in own.items()}


def _by_milestone(frame: pl.DataFrame) -> dict[float, pl.DataFrame]:
    parts = frame.partition_by("fraction", as_dict=True, include_key=False)
    return {at: parts[at,] for at in sorted(at for (at,) in parts)}


def _thousandths(name: str) -> pl.Expr:
    return (pl.col(name) * THOUSAND).round().cast(pl.Int16)


def _strings(table: pl.LazyFrame) -> pl.LazyFrame:
    return table.with_columns(pl.col(MEME).cast(pl.String))
