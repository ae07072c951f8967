"""Overlap of the runs' final updates, module by module: left and right, of trained updates and of random ones."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import polars as pl

from memedynamics import spectrum_bases
from memedynamics.subspaces import expected_overlap, overlap

COLUMNS = ("overlap_left", "overlap_right", "overlap_left_expected")
UPDATES = ("trained", "random")
SCHEMA = {"method": pl.String, "seed": pl.Int32, "versus": pl.String, "probe_kind": pl.String, "id": pl.String}
SCHEMA |= dict.fromkeys(COLUMNS, pl.Float64)


def between_runs(bases: Mapping[tuple[str, int], Path]) -> pl.DataFrame:
    """COLUMNS for every pair of methods at equal seed, and of seeds of one method, in each module both adapt.

    `versus` names the other run; `probe_kind` is trained or random. One module is in memory at a time.
    """
    held = {run: spectrum_bases.modules(file) for run, file in sorted(bases.items())}
    rows = []
    for module in sorted(set().union(*held.values())):
        runs = [run for run, modules in held.items() if module in modules]
        for update in UPDATES:
            sides = {
                run: [spectrum_bases.read(bases[run], update, side, module) for side in ("left", "right")]
                for run in runs
            }
            for one, other in combinations(runs, 2):
                if (one[0] == other[0]) != (one[1] == other[1]):
                    versus = f"seed{other[1]}" if one[0] == other[0] else other[0]
                    rows.append((*one, versus, update, module, *_shared(sides[one], sides[other])))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").fill_nan(None)


def _shared(one: list, other: list) -> tuple[float, float, float]:
    left, right = (overlap(a, b) for a, b in zip(one, other, strict=True))
    return left, right, expected_overlap(one[0], other[0])
