"""How the gradients of the methods' objectives relate on one policy: cosines, reliability, the theory's sign.

1. cosine: of the batch's summed gradients, as an optimiser would see them, for every pair of objectives, over the whole
   adapter, there also in bins of p, each prompt's share of correct samples, and over each module.
2. Two objectives on the same few samples share their noise, which pushes the cosine away from that of the expected
   gradients. `cosine_across` leaves the products within a meme out, Σ_{i≠j}⟨g_i, h_j⟩/√(Σ_{i≠j}⟨g_i, g_j⟩ Σ_{i≠j}⟨h_i,
   h_j⟩): it estimates the latter, and is empty where the noise leaves no squared norm above 0 or the estimate leaves
   [−1, 1].
3. split_half: the cosine between sums over two random halves of the memes, of one objective: mean over SPLITS splits
   and the range of 95 % of them. Where that range is not above 0 in the same bin, the objective has no direction beyond
   this batch: its `cosine` speaks of the batch alone, and its `cosine_across` is empty, `missing` saying why. Few
   splits of few memes differ: of six memes ten, of sixteen 6,435.
4. random_spread: 1/√d, the standard deviation of the cosine of two random directions in d parameters. Gradients fill
   few of these directions, so split_half is the sterner yardstick.
5. sign_agreement: the share of prompts on which ⟨g_em, g_grpo⟩ has the theory's sign, − where 0 < p < ½ and + where
   ½ < p < 1 (docs/theory.md, 17), for the sampled GRPO and for that of the
   decision. p is itself estimated from the K samples.
6. Interval: delete-one-cluster jackknife (Efron & Stein 1981) with Student's t, cosines on the scale of artanh so that
   it stays inside [−1, 1]; equal captions are one cluster. A bootstrap would draw memes twice and count their noise as
   agreement. The modules' intervals rest on the extract's groups of memes. A cosine has a value but no interval where
   its clusters are under FEWEST or leaving one out leaves no squared norm above 0; random_spread never has one.
7. On-policy: each gradient rests on samples of the policy it is taken at. SFT and DPO as they are trained reuse the
   base model's samples; here they are what they would be on fresh ones.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations, product
from pathlib import Path

import numpy as np
import polars as pl

from memedynamics import stats
from memedynamics.errors import InputError
from memedynamics.gather import MEME
from memedynamics.gradient_cosines import FEWEST, Products, cosines, jackknife, split_half, without_each
from memedynamics.objectives import OBJECTIVES

WHOLE = "all"
AGAINST = "grpo"
EM = ("em_decision", "em_sequence", "em_token")
RL = (AGAINST, "grpo_decision")
NUMBERS = ("value", "ci_low", "ci_high")
ROUNDING = 1e-6  # of float32 products
TOO_FEW = "too few prompts in this bin"
BEYOND = "the estimate leaves [−1, 1]: too much noise for the number of prompts"
# Bins of p by name, in the order of p; `all` is every prompt.
BINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "all": lambda p: p >= 0,
    "none": lambda p: p == 0,
    "below": lambda p: (p > 0) & (p < 0.5),
    "half": lambda p: p == 0.5,
    "above": lambda p: (p > 0.5) & (p < 1),
    "every": lambda p: p == 1,
}


def read(rows: pl.DataFrame, prompts: pl.DataFrame) -> Products:
    """The products in `rows`, one run's at one fraction in one module (schema `extract_gradients`).

    `prompts`: dataset, split, id, text. Memes are clustered by caption, groups stand alone.
    """
    rows = rows.with_row_index("_order").sort("_order")
    inner = np.stack(rows["inner"].to_list()).astype(np.float64)
    first = rows.filter(pl.col("objective") == OBJECTIVES[0])
    if rows["module"][0] == WHOLE:
        texts = first.join(prompts, on=MEME, how="left", maintain_order="left")["text"]
        cluster = stats.clusters(texts.to_list())
    else:
        cluster = first["place"].to_numpy().astype(np.int64)
    units, size = len(first), len(OBJECTIVES)
    p = first["p"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    return Products(inner.reshape(units, size, units, size), cluster, p)


def checked(extract: pl.DataFrame, where: Path) -> pl.DataFrame:
    """`extract` itself; InputError naming file and column where inner products are no numbers, or too few or many."""
    rows = pl.len().over("fraction", "module")
    computed = extract.filter(pl.col("missing").is_null())
    if computed.filter(pl.col("inner").list.len() != rows).height:
        raise InputError(f"{where}, column inner: not one product a row of its module; delete it and run again")
    if not computed["inner"].list.explode().is_finite().all():
        raise InputError(f"{where}, column inner: NaN or infinite values; delete it and run again")
    return extract


def pairwise(products: Products, across: bool = False) -> Iterator[dict]:
    """Rows (objective, other, statistic, …) of every pair of objectives, n = units that both learn from."""
    learns = np.einsum("uouo->uo", products.inner) > 0
    value = cosines(np.ones((1, len(products.p))), products.inner, across)[0]
    left_out = cosines(without_each(products.cluster), products.inner, across)
    low, high = (np.clip(end, -1, 1) for end in jackknife(value, left_out, bounded=not across))
    for a, b in combinations(range(len(OBJECTIVES)), 2):
        n = int((learns[:, a] & learns[:, b]).sum())
        reason = _undefined(value, a, b, alone=across and len(products.p) < 2)
        found = (np.clip(value[a, b], -1, 1), low[a, b], high[a, b])
        yield _row(OBJECTIVES[a], OBJECTIVES[b], "cosine_across" if across else "cosine", found, n, reason)


def _undefined(value: np.ndarray, a: int, b: int, alone: bool) -> str | None:
    if alone:
        return TOO_FEW
    for one in (a, b):
        if np.isnan(value[one, one]):
            return _no_norm(OBJECTIVES[one])
    return BEYOND if abs(value[a, b]) > 1 + ROUNDING else None


def _no_norm(objective: str) -> str:
    return f"the squared norm of {objective} is not above 0"


def reliabilities(products: Products) -> Iterator[dict]:
    """Rows of `split_half` of every objective, n = units that it learns from."""
    learns = (np.einsum("uouo->uo", products.inner) > 0).sum(0)
    for name, *found, n in zip(OBJECTIVES, *split_half(products), learns, strict=True):
        undefined = TOO_FEW if products.clusters < FEWEST else _no_norm(name)
        yield _row(name, name, "split_half", found, int(n), undefined if np.isnan(found[0]) else None)


def _row(
    one: str, other: str, statistic: str, found: Sequence[float], n: int, missing: str | None = None, unit: str = "1"
) -> dict:
    """`found`: value and interval, which stay empty where a reason is `missing`."""
    numbers = dict(zip(NUMBERS, map(float, found), strict=True)) if missing is None else dict.fromkeys(NUMBERS)
    return {"objective": one, "other": other, "statistic": statistic, **numbers, "n": n, "unit": unit} | {
        "missing": missing
    }


def norms(products: Products) -> Iterator[dict]:
    """The norm of each objective's mean gradient over the units, with its jackknife interval."""

    def mean_norm(weights: np.ndarray) -> np.ndarray:
        own = np.einsum("uovo->ouv", products.inner)
        squares = np.einsum("ru,ouv,rv->ro", weights, own, weights, optimize=True)
        return stats.ratio(np.sqrt(np.maximum(squares, 0)), weights.sum(1, keepdims=True) + 0 * squares)

    value = mean_norm(np.ones((1, len(products.p))))[0]
    low, high = jackknife(value, mean_norm(without_each(products.cluster)), bounded=False)
    for a, name in enumerate(OBJECTIVES):
        yield _row(name, name, "norm", (value[a], max(low[a], 0.0), high[a]), len(products.p), unit="nat")


def sign_agreement(products: Products, resamples: int) -> Iterator[dict]:
    """Share of prompts on which an EM gradient stands to GRPO's as the theory says, by cluster bootstrap."""
    expected = np.sign(products.p - 0.5) * ((products.p > 0) & (products.p < 1))
    weights = stats.resample_weights(int(products.cluster.max()) + 1, resamples, "gradients")
    for name, other in product(EM, RL):
        inner = np.einsum("uu->u", products.inner[:, OBJECTIVES.index(name), :, OBJECTIVES.index(other)])
        asked = (expected != 0) & (inner != 0)
        if not asked.any():
            continue
        right = asked & (np.sign(inner) == expected)
        pair = np.stack([right, asked], axis=1).astype(float)
        total, drawn = pair.sum(0), stats.resampled_sums(pair, products.cluster, weights)
        low, high = stats.interval(stats.ratio(drawn[:, 0], drawn[:, 1]))
        value = stats.ratio(total[0], total[1])
        yield _row(name, other, "sign_agreement", (value, low, high), int(asked.sum()))


def rows(extract: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> pl.DataFrame:
    """What `extract`, schema `extract_gradients` of one run or more with method and seed, says; `finish` is next.

    `prompts`: dataset, split, id, text.
    """
    keys = ["method", "seed", "fraction", "module", "dataset", "split"]
    found: list[dict] = []
    for key, part in extract.group_by(keys, maintain_order=True):
        named = dict(zip(keys, key, strict=True))
        found += [named | row for row in _of(part, prompts, resamples)]
    types = {"seed": pl.Int32, "missing": pl.String} | dict.fromkeys(NUMBERS, pl.Float64)
    return reliable(pl.DataFrame(found, schema_overrides=types, infer_schema_length=None))


def reliable(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` without the numbers of `cosine_across` whose one side has no split-half reliability above 0, and why.

    `cosine` stays: it compares gradients of the same batch, noise and all, and claims nothing beyond it.
    """
    keys = ["method", "seed", "fraction", "dataset", "split", "bin"]
    halves = rows.filter((pl.col("statistic") == "split_half") & (pl.col("module") == WHOLE))
    low = pl.format("split-half reliability of {} is not above 0", "objective")
    why = pl.coalesce(
        "missing", pl.when((pl.col("ci_low").fill_nan(None) > 0).fill_null(False)).then(None).otherwise(low)
    )
    for side in ("objective", "other"):
        known = halves.select(*keys, pl.col("objective").alias(side), why.alias(f"_{side}"))
        rows = rows.join(known, on=[*keys, side], how="left", nulls_equal=True, maintain_order="left")
    asked = pl.col("statistic") == "cosine_across"
    rows = rows.with_columns(
        missing=pl.when(asked).then(pl.coalesce("missing", "_objective", "_other")).otherwise("missing")
    )
    emptied = pl.when(pl.col("missing").is_null()).then(pl.col(NUMBERS))
    return rows.with_columns(emptied.name.keep()).drop("_objective", "_other")


def _of(part: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> Iterator[dict]:
    if reason := part["missing"][0]:
        yield {"bin": WHOLE} | _row(AGAINST, EM[0], "cosine", (), 0, reason)
        return
    products = read(part, prompts)
    if part["module"][0] != WHOLE:
        yield from ({"bin": WHOLE, **row} for row in pairwise(products))
        return
    for name, inside in BINS.items():
        if (mask := inside(products.p)).any():
            here = products.of(mask)
            found = pairwise(here), pairwise(here, across=True), reliabilities(here), norms(here)
            for row in chain(*found, sign_agreement(here, resamples)):
                yield {"bin": name, **row}
    count = int(part["parameters"][0])
    spread, reason = (count**-0.5, None) if count else (np.nan, "no parameter of the adapter has a gradient")
    yield {"bin": WHOLE} | _row(AGAINST, AGAINST, "random_spread", (spread, np.nan, np.nan), count, reason)
