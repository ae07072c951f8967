"""Updates at matched norm: every run where its ‖ΔW‖/‖W0‖ first passes the smallest final one of the compared runs."""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import polars as pl

NORM = "relative_frobenius"
RUN = ["method", "seed"]
TOO_FAR = "moved beyond the matched norm before its first milestone"
NEVER = "never moved as far as the matched norm"


class Crossing(NamedTuple):
    """Between which milestones a norm is passed, and how far from the first to the second."""

    before: float
    after: float
    share: float


def crossing(norms: Sequence[tuple[float, float]], target: float) -> Crossing | None:
    """Where `norms`, (fraction, norm) in order, first pass `target`, linearly in log norm; None if at none of them.

    With (0.5, 1), (1, 4) and target 2 the share is ln 2/ln 4 = ½.
    """
    for fraction, norm in norms[:1]:
        if math.isclose(norm, target, rel_tol=1e-9):
            return Crossing(fraction, fraction, 1.0)
    for (before, low), (after, high) in zip(norms, norms[1:], strict=False):
        if low <= target <= high * (1 + 1e-9) and low < high:
            return Crossing(before, after, min(1.0, math.log(target / low) / math.log(high / low)))
    return None


def matched(norms: pl.DataFrame, compared: Collection[str]) -> float | None:
    """The smallest final norm of the methods `compared`, where any of them moved, else of all; None if none did.

    A run that is not compared, such as a merge or an adapter from elsewhere, may be short: it sets no norm for others.
    """
    ends = norms.filter(pl.col("fraction") == pl.col("fraction").max(), pl.col(NORM) > 0)
    asked = ends.filter(pl.col("method").is_in(list(compared)))
    return (ends if asked.is_empty() else asked)[NORM].min()


def at_matched_norm(
    frame: pl.DataFrame, measured: Sequence[str], compared: Collection[str]
) -> tuple[pl.DataFrame, list[dict]]:
    """Columns `measured` of every module at the matched norm, as at the last fraction; and rows saying where that is.

    `frame` holds trained updates by RUN, fraction and module; `compared` as in `matched`. Runs that never were at that
    norm get a row that says so.
    """
    norms = frame.group_by(*RUN, "fraction").agg(pl.col(NORM).mean()).sort(*RUN, "fraction")
    final, target = frame["fraction"].max(), matched(norms, compared)
    if target is None:
        return frame.clear(), []
    parts, where = [], []
    for (method, seed), run in norms.partition_by(RUN, as_dict=True, maintain_order=True).items():
        moved = run.filter(pl.col(NORM) > 0)
        found = crossing(moved.select("fraction", NORM).rows(), target)
        modules = frame.filter((pl.col("method") == method) & (pl.col("seed") == seed))
        keys = {"method": method, "seed": seed, "fraction": final, "unit": "1", "n": modules["id"].n_unique()}
        where.append({**keys, "statistic": "matched_norm", "value": target, "missing": None})
        at = found and found.before + found.share * (found.after - found.before)
        beyond = len(moved) and moved[NORM].max() > target
        missing = None if found else TOO_FAR if beyond else NEVER
        where.append({**keys, "statistic": "fraction_at_norm", "value": at, "missing": missing})
        if found:
            parts.append(_between(modules, found, measured).with_columns(fraction=pl.lit(final)))
    return pl.concat(parts), where


def _between(modules: pl.DataFrame, at: Crossing, measured: Sequence[str]) -> pl.DataFrame:
    before, after = (modules.filter(pl.col("fraction") == fraction) for fraction in (at.before, at.after))
    pairs = after.join(before.select("id", *measured), on="id", suffix=" before")
    mixed = [pl.col(f"{name} before") * (1 - at.share) + pl.col(name) * at.share for name in measured]
    return pairs.with_columns(expression.alias(name) for expression, name in zip(mixed, measured, strict=True)).select(
        modules.columns
    )
