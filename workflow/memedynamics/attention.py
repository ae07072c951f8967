"""Where the last prompt token looks, whether noise on the picture moves it, and which answers stay right.

1. Shares of a row add up to 1 over the segments. `density` is share per token, so uniform attention gives 1/T in every
   segment; `sinkless_share` is the part of what is not on sink tokens (over 20 % of π0's clean row, fixed per layer and
   meme), `sink_share` what is on them. Attention shows where a layer reads, not what the answer rests on: read shares
   beside what happens to the decision when the picture goes.
2. `head` mean: the mean over heads; max: the largest head of each row. Without `layer`: the mean over layers.
3. `total_variation` and `jensen_shannon` compare a row on the perturbed picture with the same policy's clean row; with
   each other policies are compared through their shares.
4. A decision is P(Yes) ≥ P(No), after one of three texts (`looking_decisions`). `redrawn`, the policy's own greedy
   response to the perturbed picture, says which method stays right; only the end of training and a few perturbations
   have it. After `rationale`, written on the clean picture, the text decides; after `header` the answers have little
   mass. `flip_rate` and the changes are against the policy's own clean decision after the same kind of text;
   `decision_accuracy` against the label, which a natural swap turns. Under `other_image` the right answer is unknown:
   there accuracy is against the meme's own label.
5. `random` is the control: an update of the same norm in every module, in random directions.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import polars as pl

from memedynamics import curves, gather
from memedynamics.attention_frames import CELLS, DECISIONS, LOOKS, SEGMENTS
from memedynamics.gather import BASE, MEME
from memedynamics.perturbations import CLEAN
from memedynamics.stats import ratio

KEYS = ("policy", "perturbation", "layer", "head", "after")  # what a curve is besides method, seed and fraction
NO_CONTROL = "its update has no low-rank factors, so there is no random one of the same norm in every module"


def _mean(column: str) -> tuple:
    return lambda sums: ratio(sums[column], sums["present"])


def _density(segment: str) -> tuple:
    return lambda sums: ratio(sums[f"density_{segment}"], sums[f"has_{segment}"])


SHARES: curves.Statistics = {f"{s}_share": ("1", _mean(f"share_{s}")) for s in SEGMENTS}
MOVES: curves.Statistics = {
    "total_variation": ("1", _mean("tv")),
    "jensen_shannon": ("nat", _mean("js")),
}
READING: curves.Statistics = {
    **SHARES,
    **{f"{s}_density": ("1/token", _density(s)) for s in SEGMENTS},
    **{f"{s}_sinkless_share": ("1", _mean(f"sinkless_{s}")) for s in SEGMENTS},
    "sink_share": ("1", _mean("sink_share")),
}
GRID: curves.Statistics = {f"cell_share/{cell}": ("1", _mean(f"cell_{cell}")) for cell in range(len(CELLS))}
DECIDING: curves.Statistics = {
    "decision_accuracy": ("1", _mean("right")),
    "accuracy_change": ("1", _mean("right_change")),
    "flip_rate": ("1", _mean("flipped")),
    "log_odds_change": ("nat", _mean("change")),
    "log_odds_change_absolute": ("nat", _mean("change_absolute")),
    "label_mass": ("1", _mean("label_mass")),
}
COMPARED = (*SHARES, *(f"{s}_sinkless_share" for s in SEGMENTS), *MOVES, *list(DECIDING)[:4])


class Kind(NamedTuple):
    """Per-meme numbers of one kind, and what is made of them."""

    rows: pl.DataFrame
    columns: Sequence[str]
    statistics: curves.Statistics


def measure(
    layers: pl.DataFrame,
    means: pl.DataFrame,
    decided: pl.DataFrame,
    prompts: pl.DataFrame,
    runs: pl.DataFrame,
    resamples: int,
) -> pl.DataFrame:
    """The analysis `attention`, in its schema (`study` left to the writer).

    The first three are `attention_frames.by_meme`.
    """
    mean, largest = pl.col("head") == "mean", pl.col("head") == "max"
    kinds = [
        Kind(layers.filter(mean), LOOKS, READING),
        Kind(layers.filter(largest), LOOKS, SHARES),
        Kind(means.filter(mean), LOOKS, READING | MOVES),
        Kind(means.filter(largest), LOOKS, SHARES | MOVES),
        Kind(means.filter(mean & (pl.col("perturbation") == CLEAN)), CELLS, GRID),
        Kind(decided, DECISIONS, DECIDING),
    ]
    rows = [row for kind in kinds for part in _parts(kind) for row in _rows(part, prompts, resamples)]
    table = pl.DataFrame(rows, infer_schema_length=None).drop_nans("value")
    table = pl.concat(
        [_named(table).with_columns(missing=pl.lit(None, pl.String)), _missing(means)], how="diagonal_relaxed"
    )
    return gather.finish(table, runs)


def _parts(kind: Kind) -> Iterator[Kind]:
    """`kind` cut by dataset, split and all KEYS but the policy; a curve's name holds its keys."""
    lacking = [pl.lit(None, pl.String).alias(key) for key in KEYS if key not in kind.rows.columns]
    rows = kind.rows.with_columns(lacking)
    name = pl.concat_str([pl.col(key).cast(pl.String).fill_null("") for key in KEYS], separator="|")
    rows = rows.with_columns(pl.col(kind.columns).cast(pl.Float64).fill_null(0), probe_kind=name, present=pl.lit(1.0))
    for part in rows.sort(MEME).partition_by("dataset", "split", *KEYS[1:], maintain_order=True):
        yield kind._replace(rows=part)


def _rows(kind: Kind, prompts: pl.DataFrame, resamples: int) -> list[dict]:
    columns = ["present", *kind.columns]
    memes, who, views = curves.place(kind.rows, prompts, columns)
    index = [views.add(curve) for curve in range(len(who))]
    compared = [] if kind.rows["layer"].is_not_null().any() else _comparisons(who)
    pairs = [views.pair(a, b) for a, b, _ in compared]
    estimates = curves.evaluate(views, columns, kind.statistics, *curves.resampling(memes, resamples))
    where = {"dataset": memes["dataset"][0], "split": memes["split"][0]}
    keys = [{**where, **curve, "versus": None} for curve in who]
    against = [{**keys[a], "versus": versus} for a, _, versus in compared]
    rows = curves.level_rows(keys, views, index, estimates)
    chosen = {name: estimate for name, estimate in estimates.items() if name in COMPARED}
    return rows + curves.difference_rows(against, views, pairs, chosen)


def _comparisons(who: Sequence[dict]) -> list[tuple[int, int, str]]:
    """Curves to compare: each policy with the base, with its random control, and methods at equal seed and fraction."""
    found = []
    for a, b in combinations(range(len(who)), 2):
        one, other = who[a], who[b]
        if BASE in (one["method"], other["method"]):
            found.append((b, a, BASE) if one["method"] == BASE else (a, b, BASE))
        elif (one["seed"], one["fraction"]) == (other["seed"], other["fraction"]):
            kinds = [curve["probe_kind"].partition("|")[0] for curve in (one, other)]
            if one["method"] == other["method"]:
                found.append((a, b, "random") if kinds[0] == "trained" else (b, a, "random"))
            elif kinds == ["trained", "trained"]:
                found.append((a, b, other["method"]))
    return found


def _named(table: pl.DataFrame) -> pl.DataFrame:
    """`table` with the keys that curves and statistics carry in their names in columns of their own."""
    names = pl.col("probe_kind").str.split("|")
    keys = {key: names.list.get(i).replace("", None) for i, key in enumerate(KEYS)}
    cell = pl.col("statistic").str.extract(r"/(\d+)").cast(pl.Int16)
    table = table.with_columns(**keys, cell=cell, statistic=pl.col("statistic").str.replace(r"/\d+", ""))
    return table.with_columns(pl.col("layer").cast(pl.Int16)).drop("probe_kind")


def _missing(means: pl.DataFrame) -> pl.DataFrame:
    """A row for every run without a random control."""
    trained = means.filter(
        (pl.col("method") != BASE) & (pl.col("fraction") == pl.col("fraction").max().over("method", "seed"))
    )
    lacking = trained.filter((pl.col("policy") == "trained").all().over("method", "seed"))
    return (
        lacking.select("method", "seed", "fraction", "dataset", "split")
        .unique()
        .with_columns(
            policy=pl.lit("random"),
            perturbation=pl.lit(CLEAN),
            head=pl.lit("mean"),
            statistic=pl.lit("image_share"),
            n=pl.lit(0, pl.Int64),
            unit=pl.lit("1"),
            missing=pl.lit(NO_CONTROL),
        )
    )
