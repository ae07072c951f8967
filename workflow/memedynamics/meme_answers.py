"""What the runs answered to each meme, for the memes browser: from samples, traces, responses and attention extracts.

Everything is at a run's last milestone and lazily filtered before it is read: traces are larger than memory.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from memedynamics import attention_frames, gather
from memedynamics.keys import MEME
from memedynamics.meme_runs import Sources
from memedynamics.perturbations import CLEAN

LAST = pl.col("fraction") == pl.col("fraction").max()
FIRST = pl.col("sample") == 0
THOUSAND = 1000  # probabilities and nats are written in thousandths


def counts(samples: Sequence[Path]) -> pl.DataFrame:
    """A row a meme that the run answered: `answers`, and how many of them are `right` and `well_formed`."""
    table = gather.scan(samples, "samples").filter(LAST)
    sums = [pl.col("correct").sum().alias("right"), pl.col("format_ok").sum().alias("well_formed")]
    found = table.group_by(MEME).agg(pl.len().alias("answers"), *sums).collect(engine="streaming")
    return gather.finite_sums(found, samples, "samples")


def answers(samples: Sequence[Path]) -> pl.DataFrame:
    """A row a meme: MEME, the first response (`token_ids`, `finish_reason`, `forced`), and lists over all of them.

    The lists, by sample: `answer`, `correct`, `format_ok`, and `p_hateful` in thousandths.
    """
    table = gather.scan(samples, "samples").filter(LAST)
    lists = [pl.col(name).sort_by("sample") for name in ("answer", "correct", "format_ok")]
    lists.append(_thousandths("p_hateful").sort_by("sample"))
    lists = table.group_by(MEME).agg(*lists)
    first = table.filter(FIRST).select(*MEME, "token_ids", "finish_reason", "forced")
    return _strings(lists.join(first, on=MEME, how="left")).collect(engine="streaming")


def distances(traces: Sequence[Path]) -> pl.DataFrame:
    """A row a meme: lists of per-token KL in thousandths of a nat, of the first response of each kind.

    `kl_own`: KL(π‖π0) on the run's own response; `kl_base`: KL(π0‖π) on the base's; `…_sum`: the whole response's,
    which those of its tokens, rounded, do not add up to. Empty where one is not scored.
    """
    own = pl.col("probe_kind") == "own_sample"
    table = gather.scan(traces, "traces").filter(FIRST & pl.col("probe_kind").is_in(["own_sample", "base_sample"]))
    table = table.filter(pl.col("fraction") == last(traces), pl.col("split") != "train")
    kl = pl.when(own).then("kl_reverse").otherwise("kl_forward")
    rows = table.select(*MEME, "position", own.alias("own"), kl=kl * THOUSAND)
    columns = []
    for name, chosen in (("kl_own", pl.col("own")), ("kl_base", ~pl.col("own"))):
        some = pl.col("kl").filter(chosen)
        tokens = some.sort_by(pl.col("position").filter(chosen)).round().cast(pl.Int32)
        whole = some.cast(pl.Float64).sum().round().cast(pl.Int32)
        columns += [tokens.alias(name), pl.when(some.count() > 0).then(whole).alias(f"{name}_sum")]
    found = _strings(rows.group_by(MEME).agg(*columns)).collect(engine="streaming")
    return found.with_columns(
        pl.when(pl.col(name).list.len() > 0).then(name).alias(name) for name in ("kl_own", "kl_base")
    )


def last(paths: Sequence[Path]) -> float:
    """The last milestone that the tables at `paths` hold."""
    return pl.scan_parquet(paths).select(pl.col("fraction").max()).collect(engine="streaming").item()


def on_base(responses: Sequence[Path]) -> pl.DataFrame:
    """A row a meme: `p_on_base`, the run's P(yes) after the base's first response, in thousandths."""
    table = gather.scan(responses, "responses").filter(FIRST, probe_kind="base_sample", fraction=last(responses))
    table = table.filter(pl.col("split") != "train")
    return _strings(table.select(*MEME, _thousandths("p_hateful").alias("p_on_base"))).collect(engine="streaming")


def looks(extracts: Sequence[Path]) -> pl.DataFrame:
    """A row a meme that attention was read for: `cells`, its share on each of the picture's 4×4 cells, in 1/10,000.

    Of the prompt's last token on the clean picture, mean over heads and layers.
    """
    table = gather.scan(extracts, "extract_attention")
    table = table.filter(perturbation=CLEAN, head="mean", policy="trained", fraction=last(extracts))
    cells = pl.concat_list((pl.col(cell) * 10 * THOUSAND).round().cast(pl.Int32) for cell in attention_frames.CELLS)
    return attention_frames.over_layers(table).select(pl.col(MEME).cast(pl.String), cells=cells)


def every(of: Sources) -> list[pl.DataFrame]:
    """What a run's files say of each meme: `answers`, and where there are any `distances`, `on_base` and `looks`."""
    found = [answers(of.samples)]
    found += [distances(of.traces), on_base(of.responses)] if of.traces else []
    return [*found, *([looks(of.attention)] if of.attention else [])]


def _thousandths(name: str) -> pl.Expr:
    return (pl.col(name) * THOUSAND).round().cast(pl.Int16)


def _strings(table: pl.LazyFrame) -> pl.LazyFrame:
    return table.with_columns(pl.col(MEME).cast(pl.String))
