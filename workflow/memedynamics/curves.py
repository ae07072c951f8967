"""From per-prompt numbers to estimates with intervals, for many policies at once.

A curve is one policy at one milestone. Its numbers form a grid (prompts, curves, columns), zero where a policy was
not asked; column 0 is `present`. A view is a curve restricted to some prompts: what two curves, or two splits, have
in common is compared view against view under the same resample weights, so every difference is paired.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from memedynamics import stats
from memedynamics.gather import CURVE, MEME

Sums = dict[str, np.ndarray]
Statistics = dict[str, tuple[str, Callable[[Sums], np.ndarray]]]


class Estimate(NamedTuple):
    """A statistic of v views: value (v,), its resampled values (resamples, v), and its unit."""

    value: np.ndarray
    replicates: np.ndarray
    unit: str


def grid(frame: pl.DataFrame, memes: pl.DataFrame, curves: pl.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Values of `columns` (prompts, curves, columns) in the order of `memes` and `curves`; 0 where there is no row."""
    placed = frame.join(memes.with_row_index("_meme").select("_meme", *MEME), on=MEME).join(
        curves.with_row_index("_curve"), on=CURVE, nulls_equal=True
    )
    values = np.zeros((len(memes), len(curves), len(columns)))
    values[placed["_meme"].to_numpy(), placed["_curve"].to_numpy()] = placed.select(columns).to_numpy()
    return values


def resampling(memes: pl.DataFrame, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster of each meme (n,), by caption, and the resample weights (resamples, clusters) all curves share."""
    cluster = stats.clusters(memes["text"])
    name = "/".join(sorted(set(memes["dataset"])) + sorted(set(memes["split"])))
    return cluster, stats.resample_weights(int(cluster.max()) + 1, resamples, name)


class Views:
    """Collects views, each once; `add` gives a view's index."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.present = values, values[:, :, 0] > 0
        self.index: dict[tuple[int, bytes], int] = {}
        self.curves: list[int] = []
        self.masks: list[np.ndarray] = []

    def add(self, curve: int, mask: np.ndarray | None = None) -> int:
        """Index of `curve` on the prompts it answered, restricted to `mask` (n,) bool."""
        mask = self.present[:, curve] if mask is None else self.present[:, curve] & mask
        key = (curve, mask.tobytes())
        if key not in self.index:
            self.index[key] = len(self.curves)
            self.curves.append(curve)
            self.masks.append(mask)
        return self.index[key]

    def pair(self, curve: int, other: int) -> tuple[int, int]:
        """Indices of two curves on the prompts both answered."""
        return self.add(curve, self.present[:, other]), self.add(other, self.present[:, curve])

    def size(self, view: int) -> int:
        """Prompts in the view."""
        return int(self.masks[view].sum())

    def masked(self) -> np.ndarray:
        """The grid of all views: (prompts, views, columns)."""
        return self.values[:, self.curves] * np.stack(self.masks, axis=1)[:, :, None]


def by_split(frame: pl.DataFrame) -> list[pl.DataFrame]:
    """`frame` in parts of one dataset and split, sorted."""
    return frame.sort(*MEME, *CURVE).partition_by("dataset", "split", maintain_order=True)


def place(frame: pl.DataFrame, prompts: pl.DataFrame, columns: Sequence[str]) -> tuple[pl.DataFrame, list[dict], Views]:
    """The memes of `prompts` that occur in `frame`, its curves as dicts, and its grid."""
    memes = prompts.join(frame.select(MEME).unique(), on=MEME, how="semi").sort(MEME)
    who = frame.select(CURVE).unique().sort(CURVE, nulls_last=False)
    return memes, who.to_dicts(), Views(grid(frame, memes, who, columns))


def evaluate(
    views: Views, columns: Sequence[str], statistics: Statistics, cluster: np.ndarray, weights: np.ndarray
) -> dict[str, Estimate]:
    """Each of `statistics`, a function of summed columns that works element-wise, for all views and resamples."""
    values = views.masked()
    total, drawn = values.sum(axis=0), stats.resampled_sums(values, cluster, weights)
    sums, resampled = ({name: array[..., i] for i, name in enumerate(columns)} for array in (total, drawn))
    return {name: Estimate(f(sums), f(resampled), unit) for name, (unit, f) in statistics.items()}


def evaluate_auroc(
    views: Views, score: int, valid: int, labels: np.ndarray, cluster: np.ndarray, weights: np.ndarray
) -> Estimate:
    """AUROC of column `score` against `labels` (n,) over the prompts of each view where column `valid` is not 0."""
    values, replicates = [], []
    for curve, mask in zip(views.curves, views.masks, strict=True):
        used = mask & (views.values[:, curve, valid] > 0)
        scores, truth = views.values[used, curve, score], labels[used]
        values.append(stats.auroc(scores, truth)[0])
        replicates.append(stats.auroc(scores, truth, weights[:, cluster[used]]))
    return Estimate(np.array(values), np.stack(replicates, axis=1), "1")


def levels(
    frame: pl.DataFrame, prompts: pl.DataFrame, columns: Sequence[str], statistics: Statistics, resamples: int
) -> list[dict]:
    """One row a split, curve and statistic: the whole way for an analysis that compares nothing.

    `frame`: CURVE, MEME and `columns`, the first of which is `present` (1.0); one row a curve and prompt.
    """
    rows: list[dict] = []
    for part in by_split(frame):
        memes, who, views = place(part, prompts, columns)
        index = [views.add(curve) for curve in range(len(who))]
        estimates = evaluate(views, columns, statistics, *resampling(memes, resamples))
        keys = [{"dataset": memes["dataset"][0], "split": memes["split"][0], **curve} for curve in who]
        rows += level_rows(keys, views, index, estimates)
    return rows


def level_rows(keys: Sequence[dict], views: Views, index: Sequence[int], estimates: dict[str, Estimate]) -> list[dict]:
    """One row a key and statistic: `keys[i]` describes view `index[i]`."""
    rows = []
    for statistic, estimate in estimates.items():
        value, replicates = estimate.value[index], estimate.replicates[:, index]
        rows += _rows(keys, statistic, value, replicates, estimate.unit, [views.size(view) for view in index])
    return rows


def difference_rows(
    keys: Sequence[dict],
    views: Views,
    pairs: Sequence[tuple[int, int]],
    estimates: dict[str, Estimate],
    suffix: str = "_difference",
) -> list[dict]:
    """One row a pair of views and statistic, first minus second, named with `suffix`; n is the smaller view's."""
    if not pairs:
        return []
    first, second = (list(side) for side in zip(*pairs, strict=True))
    rows = []
    for statistic, (value, replicates, unit) in estimates.items():
        n = [min(views.size(a), views.size(b)) for a, b in pairs]
        gap = replicates[:, first] - replicates[:, second]
        rows += _rows(keys, statistic + suffix, value[first] - value[second], gap, unit, n)
    return rows


def _rows(
    keys: Sequence[dict], statistic: str, value: np.ndarray, replicates: np.ndarray, unit: str, n: Sequence[int]
) -> list[dict]:
    low, high = stats.interval(replicates)
    return [
        {**key, "statistic": statistic, "value": v, "ci_low": lo, "ci_high": hi, "n": size, "unit": unit}
        for key, v, lo, hi, size in zip(keys, value.tolist(), low.tolist(), high.tolist(), n, strict=True)
    ]
