"""Which method has most of something and whether that is sure, and which methods rose or fell: in words.

A method is told from another where in every seed that both have the paired difference's interval leaves 0 out on one
side, or without paired differences the two intervals do not meet; and where all its seeds lie on that side of all of
the other's. With one seed, or under ten clusters, nothing is decided, whatever the intervals say (module `claims`).
Whoever leads was picked from the data, and no p is corrected: sentences say that their sides are uncorrected.
"""

from collections.abc import Sequence

import polars as pl

from memedynamics import claims, figures, wording
from memedynamics.few_clusters import few
from memedynamics.gather import BASE
from memedynamics.wording import Unit

UNCORRECTED = "uncorrected"
CORRECTED = f"{UNCORRECTED}; the summary has the corrected claims"
APART, PAIRED = f"intervals apart, {CORRECTED}", f"paired differences, {CORRECTED}"
NO_SEED = "not decided: no seed in common"


def policies(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of trained policies that have a value."""
    return rows.filter((pl.col("method") != BASE) & pl.col("seed").is_not_null()).drop_nulls("value")


def by_mean(rows: pl.DataFrame) -> list[str]:
    """Methods of `rows` (one a run), the largest mean over seeds first; equal means in the order of the figures."""
    means = dict(policies(rows).group_by("method").agg(pl.col("value").mean()).rows())
    return sorted(figures.ordered(list(means)), key=means.get, reverse=True)


def ranking(rows: pl.DataFrame, unit: Unit, most: str, least: str, what: str = "prompts") -> str:
    """'SFT moved furthest, 0.45 nat [0.43, 0.48] …, and EM least, …' of `rows`, one a run; empty without values.

    `most` and `least` are written round a method's name and its values ('{} moved furthest, {}'); n counts `what`.
    """
    rows, order = policies(rows), by_mean(rows)
    if not order:
        return ""
    n = wording.counted(rows, what)
    told = [(figures.name(method), wording.values(rows.filter(method=method), unit)) for method in order]
    if len(told) == 1:
        return f"{': '.join(told[0])}; {n}"
    if rows["value"].n_unique() == 1:
        return f"alike under {wording.named(order)}, {told[0][1]}; {n}"
    return f"{most.format(*told[0])}, and {least.format(*told[-1])}; {n}"


def lead(rows: pl.DataFrame, differences: pl.DataFrame | None = None, upward: bool = True) -> str:
    """Whether the first of the ranking (of the least, not `upward`) is told from each other method; empty for one.

    `differences`: paired ones, rows with `versus`; without them, or without rows in them, intervals are compared.
    """
    differences = None if differences is None or differences.is_empty() else differences
    order = by_mean(rows) if upward else by_mean(rows)[::-1]
    if len(order) < 2:
        return ""
    first, *others = order
    found = {other: verdict(rows, first, other, differences, upward) for other in others}
    said = [_clear(first, [other for other, reason in found.items() if not reason], differences, upward)]
    for reason in dict.fromkeys(filter(None, found.values())):
        against = wording.named([other for other, own in found.items() if own == reason])
        said.append(f"{reason} ({figures.name(first)} against {against})")
    return "; ".join(filter(None, said))


def _clear(first: str, others: Sequence[str], differences: pl.DataFrame | None, upward: bool) -> str:
    if not others:
        return ""
    side = "above" if upward else "below"
    how = APART if differences is None else PAIRED
    return f"in every seed {figures.name(first)} lies {side} {wording.named(others)} ({how})"


def verdict(
    rows: pl.DataFrame, first: str, second: str, differences: pl.DataFrame | None = None, upward: bool = True
) -> str:
    """Empty where `first` is told from `second` in the way that its place says; else why it is not decided."""
    ours, theirs = (policies(rows).filter(pl.col("method") == method) for method in (first, second))
    between = None if differences is None else _between(differences, first, second)
    gaps = _gaps(ours, theirs) if between is None else paired(differences, first, second)
    sign = 1 if upward else -1
    crossed = {_sign(a - b) for a in ours["value"] for b in theirs["value"]} | {_sign(gap[0]) for gap in gaps}
    if not {*ours["seed"]} & {*theirs["seed"]}:
        return NO_SEED
    if not gaps or any(None in gap or gap[1] == gap[2] for gap in gaps):
        return claims.NO_INTERVAL
    if len(gaps) < 2:
        return claims.ONE_SEED
    if few((pl.concat([ours, theirs]) if between is None else between).to_dicts()):
        return claims.FEW
    if len(crossed) > 1:
        return claims.SEEDS
    clear = all(low > 0 if upward else high < 0 for _, low, high in gaps)
    return "" if clear and crossed == {sign} else claims.UNDECIDED


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _gaps(ours: pl.DataFrame, theirs: pl.DataFrame) -> list[tuple[float | None, ...]]:
    """Difference of values, and of what lies between the intervals, at every seed that both have."""
    ends = ["value", "ci_low", "ci_high"]
    both = ours.select("seed", *ends).join(theirs.select("seed", *ends), on="seed", suffix="_b")
    gaps = both.select(
        pl.col("value") - pl.col("value_b"), low=pl.col("ci_low") - pl.col("ci_high_b"),
        high=pl.col("ci_high") - pl.col("ci_low_b"),
    )  # fmt: skip
    return gaps.rows()


def paired(differences: pl.DataFrame, first: str, second: str) -> list[tuple[float | None, ...]]:
    """Value and interval of first minus second by seed, whichever way round the table has them."""
    ends, known = ["value", "ci_low", "ci_high"], _between(differences, first, second).sort("seed")
    given, turned = known.filter(pl.col("method") == first).select(ends), known.filter(pl.col("method") == second)
    other = turned.select(-pl.col("value"), ci_low=-pl.col("ci_high"), ci_high=-pl.col("ci_low"))
    return [*given.rows(), *other.rows()]


def _between(differences: pl.DataFrame, first: str, second: str) -> pl.DataFrame:
    """The differences between two methods that have a value, whichever way round."""
    one = (pl.col("method") == first) & (pl.col("versus") == second)
    other = (pl.col("method") == second) & (pl.col("versus") == first)
    return differences.drop_nulls("value").filter(one | other)


def signs(rows: pl.DataFrame, above: str, below: str) -> str:
    """Which methods' values lie above and below 0 in every seed, and of which that is not decided, in words.

    `rows`: one a run, of a difference. 'above 0 in every seed: SFT (uncorrected); not decided: seeds disagree (EM)'.
    """
    found = sided(rows)
    said = []
    for words, side in ((above, 1), (below, -1)):
        if methods := [method for method, own in found.items() if own == side]:
            said.append(f"{words}: {wording.named(methods)} ({UNCORRECTED})")
    for reason in dict.fromkeys(own for own in found.values() if isinstance(own, str)):
        of = wording.named([method for method, own in found.items() if own == reason])
        said.append(f"{reason} ({of})")
    return "; ".join(said)


def sided(rows: pl.DataFrame) -> dict[str, int | str]:
    """By method, 1 or −1 where every seed's interval lies on that side of 0; else why that is not decided."""
    return {method: _side(policies(rows).filter(pl.col("method") == method)) for method in by_mean(rows)}


def _side(rows: pl.DataFrame) -> int | str:
    runs = rows.select("value", "ci_low", "ci_high").rows()
    if any(low is None or high is None or low == high for _, low, high in runs):
        return claims.NO_INTERVAL
    sides = {(low > 0) - (high < 0) for _, low, high in runs}
    if len(runs) > 1 and few(rows.to_dicts()):
        return claims.FEW
    if len({_sign(value) for value, _, _ in runs}) > 1:
        return claims.SEEDS
    if sides in ({1}, {-1}):
        return sides.pop() if len(runs) > 1 else claims.ONE_SEED
    return claims.UNDECIDED if len(runs) > 1 else claims.ONE_SEED
