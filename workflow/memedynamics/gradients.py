"""How the gradients of the methods' objectives relate on one policy: cosines, reliability, the theory's sign.

1. cosine: of the batch's summed gradients, as an optimiser would see them, for every pair of objectives, over the whole
   adapter and in bins of p, each prompt's share of correct samples; module by module against GRPO (`AGAINST`).
2. Two objectives on the same few samples share their noise, which pushes the cosine away from that of the expected
   gradients. `cosine_across` leaves the products within a meme out, Σ_{i≠j}⟨g_i, h_j⟩/√(Σ_{i≠j}⟨g_i, g_j⟩ Σ_{i≠j}⟨h_i,
   h_j⟩): it estimates the latter, can leave [−1, 1], and is empty where the noise leaves no squared norm above 0.
3. split_half: the cosine between sums over two random halves of the memes, of one objective: mean over SPLITS splits
   and the range of 95 % of them. An objective whose halves do not agree has no cosine with another to speak of.
4. random_spread: 1/√d, the standard deviation of the cosine of two random directions in d parameters. Gradients fill
   few of these directions, so split_half is the sterner yardstick.
5. sign_agreement: the share of prompts on which ⟨g_em, g_grpo⟩ has the theory's sign, − where 0 < p < ½ and + where
   ½ < p < 1 (docs/theory.md, 17), for the sampled GRPO and for that of the
   decision. p is itself estimated from the K samples.
6. Interval: delete-one-cluster jackknife (Efron & Stein 1981) with Student's t, cosines on the scale of artanh so that
   it stays inside [−1, 1]; equal captions are one cluster. A bootstrap would draw memes twice and count their noise as
   agreement. The modules' intervals rest on the extract's groups of memes.
7. On-policy: each gradient rests on samples of the policy it is taken at. SFT and DPO as they are trained reuse the
   base model's samples; here they are what they would be on fresh ones.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import scipy.stats

from memedynamics import stats
from memedynamics.errors import InputError
from memedynamics.gather import MEME
from memedynamics.objectives import OBJECTIVES

WHOLE = "all"
AGAINST = "grpo"
EM = ("em_decision", "em_sequence", "em_token")
RL = (AGAINST, "grpo_decision")
SPLITS, SEED = 200, 0
# Bins of p by name, in the order of p; `all` is every prompt.
BINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "all": lambda p: p >= 0,
    "none": lambda p: p == 0,
    "below": lambda p: (p > 0) & (p < 0.5),
    "half": lambda p: p == 0.5,
    "above": lambda p: (p > 0.5) & (p < 1),
    "every": lambda p: p == 1,
}
LIMIT = 1 - 1e-9  # a cosine's largest size before artanh


class Products(NamedTuple):
    """Inner products of gradients of u units (memes, or groups of them), and the cluster of each unit."""

    inner: np.ndarray  # (u, O, u, O)
    cluster: np.ndarray  # (u,) from 0
    p: np.ndarray  # (u,) share correct; NaN of groups

    def of(self, mask: np.ndarray) -> "Products":
        """Those of the units in `mask` (u,) bool."""
        cluster = np.unique(self.cluster[mask], return_inverse=True)[1]
        return Products(self.inner[mask][:, :, mask], cluster, self.p[mask])


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


def cosines(weights: np.ndarray, inner: np.ndarray, across: bool = False) -> np.ndarray:
    """Cosines (R, O, O) of the objectives' gradients summed over units with each row of `weights` (R, u), 0 or 1.

    `across` leaves out the products of a unit with itself. NaN where a squared norm is not above 0.
    """
    kept = inner
    if across:
        kept = inner.copy()
        kept[np.arange(len(inner)), :, np.arange(len(inner))] = 0.0
    summed = np.einsum("ru,uovq,rv->roq", weights, kept, weights, optimize=True)
    squares = np.einsum("roo->ro", summed)
    # A sum that cancels in exact arithmetic leaves a rest of float32's size.
    floor = 1e-10 * np.einsum("ru,uouo->ro", weights, inner)
    norms = np.sqrt(np.where(squares > floor, squares, np.nan))
    return summed / norms[:, :, None] / norms[:, None, :]


def jackknife(value: np.ndarray, left_out: np.ndarray, bounded: bool) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of `value` (…,) from the values with one cluster left out, `left_out` (clusters, …).

    `bounded`: on the scale of artanh. NaN with under three clusters, and where leaving one out leaves none.
    """
    clusters = len(left_out)
    if clusters < 3:
        return np.full(value.shape, np.nan), np.full(value.shape, np.nan)
    there, back = (lambda x: np.arctanh(np.clip(x, -LIMIT, LIMIT)), np.tanh) if bounded else (np.array, np.array)
    turned = there(left_out)
    error = np.sqrt((clusters - 1) / clusters * ((turned - turned.mean(0)) ** 2).sum(0))
    reach = scipy.stats.t.ppf(0.975, clusters - 1) * error
    return back(there(value) - reach), back(there(value) + reach)


def _without_each(cluster: np.ndarray) -> np.ndarray:
    """Weights (clusters, u): row c is 0 on the units of cluster c, 1 elsewhere."""
    return (cluster[None, :] != np.arange(cluster.max() + 1)[:, None]).astype(float)


def halves(cluster: np.ndarray) -> np.ndarray:
    """SPLITS splits of the clusters into two halves: weights (SPLITS, u), 1 on the units of the first half."""
    random, count = np.random.default_rng(SEED), int(cluster.max()) + 1
    first = np.argsort(random.random((SPLITS, count)), axis=1) < (count + 1) // 2
    return first[:, cluster].astype(float)


def split_half(products: Products) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lower and upper end (O,) of the cosine between sums over two halves; NaN with under two clusters."""
    size = products.inner.shape[1]
    if len(products.cluster) == 0 or products.cluster.max() < 1:
        return (np.full(size, np.nan),) * 3
    one = halves(products.cluster)
    other = 1 - one
    own = np.einsum("uovo->ouv", products.inner)
    cross, first, second = (np.einsum("ru,ouv,rv->ro", a, own, b, optimize=True) for a, b in _pairs(one, other))
    valid = (first > 0) & (second > 0)
    found = np.where(valid, cross / np.sqrt(np.where(valid, first * second, 1.0)), np.nan)
    low, high = stats.interval(found)
    counted = (~np.isnan(found)).sum(0)
    return stats.ratio(np.nansum(found, 0), counted), low, high


def _pairs(one: np.ndarray, other: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return (one, other), (one, one), (other, other)


def pairwise(products: Products, across: bool = False) -> Iterator[dict]:
    """Rows (objective, other, statistic, …) of every pair of objectives, n = units that both learn from."""
    learns = np.einsum("uouo->uo", products.inner) > 0
    value = cosines(np.ones((1, len(products.p))), products.inner, across)[0]
    left_out = cosines(_without_each(products.cluster), products.inner, across)
    low, high = jackknife(value, left_out, bounded=not across)
    for a, b in combinations(range(len(OBJECTIVES)), 2):
        found, n = (value[a, b], low[a, b], high[a, b]), int((learns[:, a] & learns[:, b]).sum())
        yield _row(OBJECTIVES[a], OBJECTIVES[b], "cosine_across" if across else "cosine", found, n)


def reliabilities(products: Products) -> Iterator[dict]:
    """Rows of `split_half` of every objective, n = units that it learns from."""
    learns = (np.einsum("uouo->uo", products.inner) > 0).sum(0)
    for name, *found, n in zip(OBJECTIVES, *split_half(products), learns, strict=True):
        yield _row(name, name, "split_half", found, int(n))


def _row(one: str, other: str, statistic: str, value: Sequence[float], n: int) -> dict:
    names = dict(zip(("value", "ci_low", "ci_high"), map(float, value), strict=True))
    return {"objective": one, "other": other, "statistic": statistic, **names, "n": n, "unit": "1"}


def norms(products: Products) -> Iterator[dict]:
    """The norm of each objective's mean gradient over the units, with its jackknife interval."""

    def mean_norm(weights: np.ndarray) -> np.ndarray:
        own = np.einsum("uovo->ouv", products.inner)
        squares = np.einsum("ru,ouv,rv->ro", weights, own, weights, optimize=True)
        return stats.ratio(np.sqrt(np.maximum(squares, 0)), weights.sum(1, keepdims=True) + 0 * squares)

    value = mean_norm(np.ones((1, len(products.p))))[0]
    low, high = jackknife(value, mean_norm(_without_each(products.cluster)), bounded=False)
    for a, name in enumerate(OBJECTIVES):
        yield _row(name, name, "norm", (value[a], max(low[a], 0.0), high[a]), len(products.p)) | {"unit": "nat"}


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
        found += [{"missing": None, **named, **row} for row in _of(part, prompts, resamples)]
    types = {"seed": pl.Int32, "missing": pl.String} | dict.fromkeys(("value", "ci_low", "ci_high"), pl.Float64)
    return pl.DataFrame(found, schema_overrides=types, infer_schema_length=None)


def _of(part: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> Iterator[dict]:
    if reason := part["missing"][0]:
        empty = {"value": None, "ci_low": None, "ci_high": None, "n": 0, "unit": "1", "missing": reason}
        yield {"bin": WHOLE, "objective": AGAINST, "other": EM[0], "statistic": "cosine", **empty}
        return
    products = read(part, prompts)
    if part["module"][0] != WHOLE:
        yield from ({"bin": WHOLE, **row} for row in pairwise(products) if AGAINST in (row["objective"], row["other"]))
        return
    for name, inside in BINS.items():
        if (mask := inside(products.p)).any():
            here = products.of(mask)
            found = pairwise(here), pairwise(here, across=True), reliabilities(here), norms(here)
            for row in chain(*found, sign_agreement(here, resamples)):
                yield {"bin": name, **row}
    spread = 1 / np.sqrt(part["parameters"][0])
    yield {"bin": WHOLE} | _row(AGAINST, AGAINST, "random_spread", (spread, np.nan, np.nan), int(part["parameters"][0]))
