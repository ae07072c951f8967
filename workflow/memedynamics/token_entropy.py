"""Entropy of the next token over the vocabulary, by span of the response; part of the analysis `entropy`."""

import polars as pl

from memedynamics import curves
from memedynamics.gather import CURVE, MEME
from memedynamics.relations import comparisons
from memedynamics.stats import ratio

SPANS = ("format", "rationale", "answer", "end")
PROBE_KINDS = ("base_sample", "own_sample")
COLUMNS = ["present", "entropy_all", "tokens_all"]
COLUMNS += [f"{what}_{span}" for span in SPANS for what in ("entropy", "tokens")]


def _per_token(span: str) -> tuple:
    return "nat/token", lambda sums: ratio(sums[f"entropy_{span}"], sums[f"tokens_{span}"])


STATISTICS: curves.Statistics = {f"exact//{span}//token_entropy": _per_token(span) for span in ("all", *SPANS)}
COMPARED = [f"exact//{span}//token_entropy" for span in ("all", "rationale", "answer")]


def per_prompt(traces: pl.LazyFrame) -> pl.DataFrame:
    """Sum of entropies and number of tokens by milestone, kind of text, meme and span. Streams: any number of rows."""
    tokens = traces.filter(pl.col("probe_kind").is_in(PROBE_KINDS))
    summed = tokens.group_by("fraction", "probe_kind", *MEME, "span").agg(
        pl.col("entropy").cast(pl.Float64).sum(), tokens=pl.len().cast(pl.Float64)
    )
    return summed.collect(engine="streaming")


def token_rows(frame: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> list[dict]:
    """Rows of one dataset and split: levels, and differences with the base and between methods, paired by prompt.

    `frame` from `per_prompt`, with method and seed. The base is compared on its own samples with either kind of text.
    """
    memes, who, views = curves.place(_by_span(frame), prompts, COLUMNS)
    index = [views.add(curve) for curve in range(len(who))]
    compared = comparisons(who)
    pairs = [views.pair(*pair) for pair in compared]
    estimates = curves.evaluate(views, COLUMNS, STATISTICS, *curves.resampling(memes, resamples))
    where = {"dataset": memes["dataset"][0], "split": memes["split"][0]}
    keys = [{**where, **curve, "versus": None} for curve in who]
    against = [{**keys[a], "versus": who[b]["method"]} for a, b in compared]
    rows = curves.level_rows(keys, views, index, estimates)
    return rows + curves.difference_rows(against, views, pairs, {name: estimates[name] for name in COMPARED})


def _by_span(frame: pl.DataFrame) -> pl.DataFrame:
    """One row a curve and prompt: COLUMNS."""
    sums = {
        f"{what}_{span}": pl.col(what).filter((pl.col("span") == span) | (span == "all")).sum()
        for span in ("all", *SPANS)
        for what in ("entropy", "tokens")
    }
    return frame.group_by(*CURVE, *MEME).agg(**sums).with_columns(present=pl.lit(1.0))
