"""What a reward model is worth on pairs that it was not trained on; apart from it, since trainings reach the model."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from memedynamics import stats
from memedynamics.errors import InputError


def held_out(rows: pl.DataFrame, share: float, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`rows` to train on, and at least a `share` of them to test on, drawn by caption.

    Raises InputError where there are fewer than two captions.
    """
    cluster = np.asarray(stats.clusters(rows["text"]))
    drawn = np.random.default_rng(seed).permutation(np.unique(cluster))
    if len(drawn) < 2:
        raise InputError(f"preferences: {len(rows)} pairs of one caption; a reward model needs more to be tested on")
    sizes = np.array([(cluster == name).sum() for name in drawn]).cumsum()
    count = min(int((sizes < share * len(rows)).sum()) + 1, len(drawn) - 1)
    tested = pl.Series(np.isin(cluster, drawn[:count]))
    return rows.filter(~tested), rows.filter(tested)


def accuracy(margins: np.ndarray, texts: Sequence[str], resamples: int = 2000) -> dict[str, float | int]:
    """How often a margin (n,) is above 0, a tie counting half; interval: bootstrap over captions (`texts`)."""
    right = (margins > 0) + 0.5 * (margins == 0)
    cluster = np.unique(np.asarray(stats.clusters(pl.Series(texts))), return_inverse=True)[1]
    weights = stats.resample_weights(int(cluster.max()) + 1, resamples, "reward_model")
    sums = stats.resampled_sums(np.stack([right, np.ones_like(right)], axis=1), cluster, weights)
    low, high = stats.interval(sums[:, 0] / sums[:, 1])
    return {"accuracy": float(right.mean()), "ci_low": float(low), "ci_high": float(high), "n": len(margins)}
