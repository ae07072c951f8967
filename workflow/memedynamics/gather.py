"""Frames over many runs, for the analyses: whose file it is stands in its path.

samples/{method}/seed{seed}.parquet, traces/{method}/seed{seed}/…, runs/{method}/seed{seed}/run.json
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl
import polars.selectors as cs

from memedynamics import tables
from memedynamics.errors import InputError
from memedynamics.keys import MEME
from memedynamics.milestones import label
from memedynamics.tables import finite

CURVE = ["method", "seed", "fraction", "probe_kind"]
BASE = "base"


def run_of(path: Path) -> tuple[str, int | None]:
    """Method and seed of an artefact's path; files of the base model, which has no seed, give ("base", None).

    Raises InputError when the path names neither.
    """
    parts = Path(path).parts
    for above, part in reversed(list(zip(parts, parts[1:], strict=False))):
        if found := re.fullmatch(r"seed(\d+)(\.parquet)?", part):
            return (above, None) if above == BASE else (above, int(found[1]))
    if BASE in parts:
        return BASE, None
    raise InputError(f"{path}: neither under a run's seed<number> nor under base; name it {{method}}/seed{{seed}}")


def files(paths: Iterable[Path]) -> list[Path]:
    """`paths` with every folder replaced by the Parquet files below it, sorted; a folder without any is refused."""
    found: list[Path] = []
    for path in paths:
        below = list(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not below:
            raise InputError(f"{path}: no Parquet file in this folder; run the rule that writes it")
        found += below
    return sorted(found)


def by_run(paths: Iterable[Path]) -> dict[tuple[str, int | None], list[Path]]:
    """The Parquet files at `paths` (files or folders), by method and seed."""
    runs: dict[tuple[str, int | None], list[Path]] = {}
    for path in files(paths):
        runs.setdefault(run_of(path), []).append(path)
    return runs


def frames(paths: Iterable[Path], name: str, columns: list[str], empty: bool = False) -> pl.DataFrame:
    """The tables of schema `name` at `paths` (files or folders), stacked, with columns method and seed.

    Raises InputError naming the file where one is of another study or schema, cut short, not finite, or a run's tables
    have no rows, unless they may be `empty`.
    """
    stacked = []
    for (method, seed), found in by_run(paths).items():
        parts = [finite(tables.read(path, name, columns), path) for path in found]
        if not empty:
            _refuse_empty(sum(map(len, parts)), found)
        stacked.append(labelled(pl.concat(parts), method, seed))
    return pl.concat(stacked)


def _refuse_empty(rows: int, paths: Sequence[Path]) -> None:
    """A shard may be empty, all tables of one run may not."""
    if not rows:
        raise InputError(f"{', '.join(map(str, paths))}: no rows; delete it and run again")


def labelled(frame: pl.DataFrame, method: str, seed: int | None) -> pl.DataFrame:
    """`frame` with columns method and seed."""
    return frame.with_columns(method=pl.lit(method), seed=pl.lit(seed, pl.Int32))


def milestones(runs: Sequence[Path]) -> pl.DataFrame:
    """Columns method, seed, fraction, step, reference, starts_at, loss_reference from the runs' run.json.

    `starts_at` says whose policy fraction 0 is, `loss_reference` which one the loss compared with (empty: with none).
    The base is at fraction 0, step 0.
    """
    rows = [(BASE, None, 0.0, 0, BASE, BASE, BASE)]
    for path in runs:
        try:
            run = json.loads(Path(path).read_text())
            starts_at = run.get("starts_at", BASE)
            origin = (run["reference"], starts_at, run.get("loss_reference", starts_at))
            rows += [(*run_of(path), float(label), step, *origin) for label, step in run["steps"].items()]
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file") from error
        except (json.JSONDecodeError, KeyError) as error:
            raise InputError(f"{path}: not a whole run.json ({error}); delete it and run again") from error
    schema = {"method": pl.String, "seed": pl.Int32, "fraction": pl.Float64, "step": pl.Int64}
    schema |= dict.fromkeys(("reference", "starts_at", "loss_reference"), pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row")


def whole(frame: pl.DataFrame, runs: pl.DataFrame, where: str) -> pl.DataFrame:
    """`frame` (method, seed, fraction, …) itself, whose rows are of `where`, such as samples.

    Raises InputError where a run in it, or one of its probe kinds where there is such a column, has no rows at a
    milestone that the run has by `runs` (`milestones`). The fraction 0 of a run that starts at the base is the base's.
    """
    own = ["method", "seed", *(["probe_kind"] if "probe_kind" in frame.columns else [])]
    found = frame.select(*own, "fraction").unique().rows()
    held = {(*run, label(fraction)) for *run, fraction in found}
    at_base = (pl.col("starts_at") == BASE) & (pl.col("method") != BASE)
    saved = runs.filter((pl.col("fraction") > 0) | ~at_base).select("method", "seed", "fraction")
    for method, seed, *kind in sorted({key[:-1] for key in held}, key=str):
        for milestone in [label(fraction) for *run, fraction in saved.rows() if run == [method, seed]]:
            if (method, seed, *kind, milestone) not in held:
                run = " ".join([method if seed is None else f"{method}/seed{seed}", *kind])
                raise InputError(f"{where} of {run}: none at milestone {milestone}; delete them and run again")
    return frame


def prompts(data: Iterable[Path]) -> pl.DataFrame:
    """One row a meme: dataset, split, id, label, text; sorted, so that indices into it are stable."""
    paths = sorted(data)
    read = [tables.read(path, "data", [*MEME, "label", "text"]) for path in paths]
    for path, frame in zip(paths, read, strict=True):
        _refuse_empty(len(frame), [path])
    return pl.concat(read).sort(MEME)


def finish(rows: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """`rows` of an analysis with step and reference of their milestone, NaN as empty, in a fixed order.

    A column `missing` (why a value is empty) is added where the analysis has none.
    Ten significant digits are kept: sums taken by several threads differ beyond them from call to call.
    """
    keys = ["method", "seed", "fraction"]
    numbers = pl.col("value", "ci_low", "ci_high").cast(pl.Float64).fill_nan(None).round_sig_figs(10)
    if "missing" not in rows.columns:
        rows = rows.with_columns(missing=pl.lit(None, pl.String))
    typed = rows.with_columns(pl.col("seed").cast(pl.Int32), pl.col("missing").cast(pl.String), numbers)
    known = runs.select(*keys, "step", "reference")
    joined = typed.join(known, on=keys, how="left", nulls_equal=True).with_columns(pl.col("reference").fill_null(BASE))
    measures = ("value", "ci_low", "ci_high", "n", "unit", "reference", "missing")
    order = [name for name in joined.columns if name not in measures]
    return joined.sort(order, nulls_last=False)


def scan(paths: Iterable[Path], name: str) -> pl.LazyFrame:
    """The tables of schema `name` at `paths`, lazily: for tables larger than memory.

    Categories stay codes, which group three times faster than strings: cast what is left after grouping.
    """
    paths = list(paths)
    _refuse_empty(sum(tables.rows(path, name) for path in paths), paths)
    return pl.scan_parquet(paths)


def finite_sums(sums: pl.DataFrame, paths: Iterable[Path], name: str) -> pl.DataFrame:
    """`sums` over the tables of schema `name` at `paths`, categories as strings.

    Raises InputError naming file and column where they are not finite; only then are the tables read again.
    """
    try:
        finite(sums, name)
    except InputError:
        for path in paths:
            finite(tables.read(path, name), path)
        raise
    return sums.with_columns(cs.categorical().cast(pl.String))
