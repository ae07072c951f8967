"""Per-meme numbers of the analysis `attention`, from the extracts of all runs; one run's is in memory at a time."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from memedynamics import gather, schemas
from memedynamics.gather import MEME
from memedynamics.perturbations import CLEAN

SEGMENTS = tuple(name[6:] for name in schemas.SCHEMAS["extract_attention"].names if name.startswith("share_"))
POLICY = ["fraction", "policy", *MEME]
CELLS = [f"cell_{cell}" for cell in range(16)]
LOOKS = [f"{kind}_{s}" for s in SEGMENTS for kind in ("share", "sinkless", "density", "has")]
LOOKS += ["sink_share", "tv", "js"]
DECISIONS = ["right", "right_change", "flipped", "change", "change_absolute", "label_mass"]


def by_meme(extracts: Sequence[Path]) -> list[pl.DataFrame]:
    """Three frames over all runs, with method and seed: `looks` per layer on clean pictures, `looks` as the mean over
    layers under every perturbation, and `decisions`.
    """
    found = []
    for (method, seed), paths in gather.by_run(extracts).items():
        table = gather.scan(paths, "extract_attention")
        frames = (by_layer(table), over_layers(table), decisions(table))
        checked = [gather.finite_sums(frame, paths, "extract_attention") for frame in frames]
        found.append([gather.labelled(frame, method, seed) for frame in checked])
    return [pl.concat(frames) for frames in zip(*found, strict=True)]


def by_layer(table: pl.LazyFrame) -> pl.DataFrame:
    """LOOKS and the cells of every layer on clean pictures, by POLICY, layer and head."""
    clean = _looks(table).filter(pl.col("perturbation") == CLEAN)
    return clean.select(*POLICY, "perturbation", "layer", "head", *LOOKS, *_cells()).collect(engine="streaming")


def over_layers(table: pl.LazyFrame) -> pl.DataFrame:
    """The mean over layers of LOOKS and of the cells, by POLICY, perturbation and head; `layer` is empty."""
    keys = [*POLICY, "perturbation", "head"]
    looks = _looks(table).select(*keys, *LOOKS, *_cells())
    means = looks.group_by(keys).agg(pl.all().mean()).with_columns(layer=pl.lit(None, pl.Int16))
    return means.collect(engine="streaming")


def _looks(table: pl.LazyFrame) -> pl.LazyFrame:
    looks = table.filter(pl.col("head").is_in(["mean", "max"]))
    columns = {}
    for s in SEGMENTS:
        tokens = pl.col(f"tokens_{s}")
        columns[f"has_{s}"] = (tokens > 0).cast(pl.Float64)
        columns[f"density_{s}"] = pl.when(tokens > 0).then(pl.col(f"share_{s}").cast(pl.Float64) / tokens).otherwise(0)
    return looks.with_columns(**columns)


def _cells() -> list[pl.Expr]:
    return [pl.col("cells").list.get(i, null_on_oob=True).alias(cell) for i, cell in enumerate(CELLS)]


def decisions(table: pl.LazyFrame) -> pl.DataFrame:
    """DECISIONS of every meme against the same policy's on the clean picture, by POLICY, perturbation and after."""
    keys = [*POLICY, "after"]
    made = table.drop_nulls("after").with_columns(yes=pl.col("log_odds") >= 0)
    made = made.with_columns(right=(pl.col("yes") == (pl.col("label") == 1)).cast(pl.Float64))
    clean = made.filter(pl.col("perturbation") == CLEAN)
    clean = clean.select(*keys, before="log_odds", before_yes="yes", before_right="right")
    change = pl.col("log_odds") - pl.col("before")
    joined = made.join(clean, on=keys).with_columns(
        change=change,
        change_absolute=change.abs(),
        flipped=(pl.col("yes") != pl.col("before_yes")).cast(pl.Float64),
        right_change=pl.col("right") - pl.col("before_right"),
    )
    return joined.select(*keys, "perturbation", *DECISIONS).collect(engine="streaming")
