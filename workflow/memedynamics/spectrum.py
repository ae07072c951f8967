"""What the weight updates of every run look like, at its milestones and at equal size.

1. A statistic is the mean over linear layers (modules) of a measure of `extract_spectrum`. Intervals are a bootstrap
   over decoder layers: modules are no sample of prompts, and those of one layer are alike, so a layer is a cluster. It
   says how much a mean hangs on single layers, not how it would vary with another training; for that see the seeds.
2. `stable_rank`, `effective_rank`, `participation_ratio` and `k90` count directions; …_per_rank is the share of the
   largest rank the update can have: r for a LoRA, which censors them; of DoRA, IA³ and full weights the smaller side.
   `singular_value` i is σ_i/‖ΔW‖: spectra scaled to the same norm.
3. An update that goes on growing changes its shape, so methods are read at matched norm: …_at_norm is interpolated,
   linearly in log ‖ΔW‖/‖W0‖ (mean over modules), between the milestones where a run first passes the smallest final
   norm among the runs of the compared methods (`matched_norm`; `fraction_at_norm` is where): those that the study's
   question is about, so that one short run of another kind takes the comparison from nobody. Compare that, not the ends
   of training. A run that never was at that norm, or was beyond it before its first milestone, says so in `missing`.
4. Random updates of the same norm and the same largest rank (`update` random, end of training) are the null of every
   measure: of a LoRA over the same initial A, without which `overlap_right` would have none, since A's initialisation
   alone makes it almost 1; of DoRA, IA³ and full weights, whose update may have full rank, all entries Gaussian.
5. `overlap_left`, `overlap_right`: shared part of the final updates' spans (at most 64 leading directions) between
   methods at equal seed and between seeds; `overlap_left_expected` is that of unrelated subspaces, k/n.
6. `intruders` and `rotation` concern the leading left vectors; `unchanged_bfloat16` beside `unchanged_float32` shows
   how much sparsity rounding fakes.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import polars as pl

from memedynamics import spectrum_norms, spectrum_overlaps
from memedynamics.gather import finish
from memedynamics.module_means import ALL, PLACE, summarise

SHAPES = ("stable_rank", "effective_rank", "participation_ratio", "k90")
MEASURES = (
    {"relative_frobenius": "1", "relative_spectral": "1"}
    | dict.fromkeys(SHAPES, "direction")
    | {f"{name}_per_rank": "1" for name in SHAPES}
    | {"spectral_shift": "1", "rotation": "1", "largest_angle": "rad", "intruders": "direction"}
    | {"unchanged_float32": "1", "unchanged_bfloat16": "1", "drift": "1"}
)
SINGULAR = "singular_value"
KEYS = ["method", "seed", "fraction"]
NOT_MOVED = "no update yet at this milestone"
KIND_ALL = {"kind": ALL, "layer": None}


def per_module(extract: pl.DataFrame) -> pl.DataFrame:
    """MEASURES and the scaled singular values of every module, by KEYS and update, under the names `curves` takes."""
    count = extract["singular_values"].list.len().max() or 0
    values = pl.col("singular_values").list
    scaled = {
        f"{SINGULAR}/{i + 1}": pl.when(pl.col("frobenius") > 0).then(
            values.get(i, null_on_oob=True).fill_null(0) / pl.col("frobenius")
        )
        for i in range(count)
    }
    return extract.drop_nulls("module").with_columns(
        **{f"{name}_per_rank": pl.col(name) / pl.col("rank") for name in SHAPES},
        **scaled,
        **{name: pl.lit(value) for name, value in PLACE.items()},
        id="module",
        probe_kind="update",
    )


def measure(
    extract: pl.DataFrame,
    bases: Mapping[tuple[str, int], Path],
    runs: pl.DataFrame,
    resamples: int,
    compared: Collection[str],
) -> pl.DataFrame:
    """The analysis `spectrum`, in its schema (`study` left to the writer).

    `extract`: the tables `extract_spectrum` with method and seed; `bases`: the runs' files of bases; `compared`: the
    methods whose final norms set the one that all are read at (all where there is none of these).
    """
    frame = per_module(extract)
    rows = nothing(extract.filter(pl.col("module").is_null()))
    if len(frame):
        rows += _by_module(frame, resamples)
        rows += _at_norm(frame, resamples, compared)
        rows += _overlaps(frame, bases, resamples)
    table = pl.DataFrame(rows, infer_schema_length=None).rename({"probe_kind": "update"})
    return finish(_explained(_with_index(table), extract), runs)


def nothing(extract: pl.DataFrame) -> list[dict]:
    """Rows without a value for the runs that update no weight."""
    keys = extract.select(*KEYS).unique().sort(KEYS).to_dicts()
    common = {**PLACE, **KIND_ALL, "versus": None, "probe_kind": "trained"}
    empty = {"value": None, "ci_low": None, "ci_high": None, "n": 0}
    units = MEASURES | {f"{name}_at_norm": unit for name, unit in MEASURES.items()}
    return [{**common, **key, **empty, "statistic": name, "unit": unit} for key in keys for name, unit in units.items()]


def _by_module(frame: pl.DataFrame, resamples: int) -> list[dict]:
    singular = {name: "1" for name in frame.columns if name.startswith(f"{SINGULAR}/")}
    rows = summarise(frame, MEASURES | singular, resamples, KIND_ALL, MEASURES)
    for kind in sorted(frame["kind"].unique()):
        rows += summarise(frame.filter(pl.col("kind") == kind), MEASURES, resamples, {"kind": kind, "layer": None})
    return rows + _by_layer(frame)


def _by_layer(frame: pl.DataFrame) -> list[dict]:
    """Means over the modules of each layer: one cluster, so no interval."""
    means = frame.group_by(*KEYS, "probe_kind", "layer").agg(pl.len().alias("n"), pl.col(*MEASURES).mean())
    long = means.unpivot(MEASURES, index=[*KEYS, "probe_kind", "layer", "n"], variable_name="statistic")
    keys = {**PLACE, "kind": ALL, "versus": None, "ci_low": None, "ci_high": None}
    return [{**row, **keys, "unit": MEASURES[row["statistic"]]} for row in long.to_dicts()]


def _at_norm(frame: pl.DataFrame, resamples: int, compared: Collection[str]) -> list[dict]:
    trained = frame.filter(pl.col("probe_kind") == "trained")
    measured = [name for name in frame.columns if name in MEASURES or name.startswith(f"{SINGULAR}/")]
    matched, where = spectrum_norms.at_matched_norm(trained, measured, compared)
    keys = {
        **PLACE,
        "kind": ALL,
        "layer": None,
        "versus": None,
        "probe_kind": "trained",
        "ci_low": None,
        "ci_high": None,
    }
    rows = [{**keys, **row} for row in where]
    never = [row for row in rows if row["missing"]]
    rows += [{**row, "statistic": f"{name}_at_norm", "unit": unit} for row in never for name, unit in MEASURES.items()]
    if matched.is_empty():
        return rows
    found = summarise(
        matched, {name: MEASURES.get(name, "1") for name in measured}, resamples, KIND_ALL, list(MEASURES)
    )
    for kind in sorted(matched["kind"].unique()):
        here = matched.filter(pl.col("kind") == kind)
        found += summarise(here, dict.fromkeys(SHAPES, "direction"), resamples, {"kind": kind, "layer": None})
    rows += [{**row, "statistic": _renamed(row["statistic"])} for row in found]
    return rows


def _renamed(statistic: str) -> str:
    name, slash, index = statistic.partition("/")
    whole = name.removesuffix("_difference")
    return f"{whole}_at_norm{name[len(whole) :]}{slash}{index}"


def _overlaps(frame: pl.DataFrame, bases: Mapping[tuple[str, int], Path], resamples: int) -> list[dict]:
    found = spectrum_overlaps.between_runs(bases)
    if found.is_empty():
        return []
    layers = frame.select("id", "layer").unique()
    shared = found.join(layers, on="id").with_columns(
        fraction=pl.lit(frame["fraction"].max()), **{name: pl.lit(value) for name, value in PLACE.items()}
    )
    rows = []
    for part in shared.partition_by("versus", maintain_order=True):
        level = summarise(part, dict.fromkeys(spectrum_overlaps.COLUMNS, "1"), resamples, KIND_ALL)
        rows += [{**row, "versus": part["versus"][0]} for row in level]
    return rows


def _with_index(table: pl.DataFrame) -> pl.DataFrame:
    parts = pl.col("statistic").str.split("/").list
    split = table.with_columns(statistic=parts.get(0), index=parts.get(1, null_on_oob=True).cast(pl.Int32))
    return split.cast({"seed": pl.Int32, "layer": pl.Int32, "versus": pl.String})


def _explained(table: pl.DataFrame, extract: pl.DataFrame) -> pl.DataFrame:
    """`table` with `missing` filled in where there is no value: the extract's own reason, or that nothing moved.

    Differences from or to what is missing are left out, and the drift of random updates, whose A is the initial one.
    """
    reasons = extract.filter(pl.col("update") == "trained").group_by(KEYS).agg(pl.col("missing").drop_nulls().first())
    given = [] if "missing" in table.columns else [pl.lit(None, pl.String).alias("missing")]
    joined = table.with_columns(*given).join(reasons, on=KEYS, how="left", suffix="_why")
    own = pl.col("statistic").str.starts_with("drift") | pl.col("n").eq(0)
    empty = pl.col("value").is_null() | pl.col("value").is_nan()
    why = pl.when(empty).then(pl.coalesce("missing", pl.when(own).then("missing_why").otherwise(pl.lit(NOT_MOVED))))
    drawn = (pl.col("update") == "random") & pl.col("statistic").str.starts_with("drift")
    return (
        joined.with_columns(missing=why).drop("missing_why").filter(~(empty & pl.col("versus").is_not_null()), ~drawn)
    )
