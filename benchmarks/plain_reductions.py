"""Headline numbers of one run's end on one split, once more and plainly: whole tables in memory, loops over prompts.

Nothing of the project's reductions is called, streamed or resampled: what they and these loops agree on, both got from
the files.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

RUN, DATASET, SPLIT = ("grpo", 1), "memes", "val"


class Number(NamedTuple):
    """A row of an analysis, by what it must hold beside run, dataset, split and the last fraction; and its value."""

    where: dict[str, str]
    value: float


def numbers(name: str, folder: Path) -> list[Number]:
    """The numbers of the analysis `name` of the study in `folder`."""
    return {"kl": kl, "likelihood": likelihood, "rewards": rewards, "entropy": entropy}[name](folder)


def largest_difference(name: str, folder: Path) -> float:
    """Largest relative difference between `numbers` and the rows of the table that the script `name` wrote."""
    table = _here(pl.read_parquet(folder / f"analyses/{name}.parquet").cast({pl.Categorical: pl.String}))
    apart = []
    for where, value in numbers(name, folder):
        found = table.filter(pl.col("method") == RUN[0], pl.col("seed") == RUN[1], pl.col("fraction") == 1)
        found = found.filter(**where)
        if "versus" in found.columns:
            found = found.filter(pl.col("versus").is_null())
        apart.append(abs(found["value"].item() - value) / max(abs(value), 1e-12))
    return max(apart)


def kl(folder: Path) -> list[Number]:
    """Forward KL a response: Σ over tokens, mean over samples, mean over prompts."""
    tokens = _read(folder, "traces", "base_sample*", ["fraction", "id", "sample", "kl_forward", "entropy"])
    sums: dict[tuple, float] = {}
    for key, value in zip(tokens.select("id", "sample").rows(), tokens["kl_forward"].to_list(), strict=True):
        sums[key] = sums.get(key, 0.0) + value
    where = {"statistic": "per_response", "direction": "forward", "estimator": "exact", "span": "all"}
    return [Number({**where, "probe_kind": "base_sample"}, _by_prompt(sums))]


def likelihood(folder: Path) -> list[Number]:
    """Change of the chosen response: the first that is correct and well-formed, where another one is not."""
    samples = _here(_whole(folder / f"samples/base/{DATASET}/{SPLIT}.parquet")).sort("id", "sample")
    good: dict[str, list[bool]] = {}
    for meme, correct, format_ok in samples.select("id", "correct", "format_ok").rows():
        good.setdefault(meme, []).append(correct and format_ok)
    chosen = {(meme, kept.index(True)) for meme, kept in good.items() if any(kept) and not all(kept)}
    scored = _read(folder, "responses", "base_sample*", ["fraction", "id", "sample", "logp", "ref_logp"])
    moved = {key[:2]: key[2] - key[3] for key in scored.select("id", "sample", "logp", "ref_logp").rows()}
    where = {"statistic": "change", "text": "chosen", "pair_type": "all"}
    return [Number(where, _by_prompt({key: moved[key] for key in chosen}))]


def rewards(folder: Path) -> list[Number]:
    """Accuracy and reward of the run's own samples: mean over samples, mean over prompts."""
    found = []
    for statistic, column in {"accuracy": "correct", "reward": "reward"}.items():
        values = {row[:2]: float(row[2]) for row in _own(folder).select("id", "sample", column).rows()}
        found.append(Number({"statistic": statistic, "source": "samples", "over": "split"}, _by_prompt(values)))
    return found


def entropy(folder: Path) -> list[Number]:
    """Entropy of the answers from P(yes), jackknifed over samples: K·H(mean) − (K − 1)·mean of H without each."""
    shares: dict[str, list[float]] = {}
    for meme, p in _own(folder).select("id", "p_hateful").rows():
        shares.setdefault(meme, []).append(p)
    exact = [_jackknifed(np.array(p)) for p in shares.values()]
    where = {"statistic": "entropy", "estimator": "exact", "invalid": "forced", "probe_kind": "own_sample"}
    tokens = _read(folder, "traces", "own_sample*", ["fraction", "id", "sample", "entropy"])
    per_token = {"statistic": "token_entropy", "estimator": "exact", "span": "all", "probe_kind": "own_sample"}
    return [
        Number(where, float(np.mean(exact))),
        Number(per_token, float(tokens["entropy"].to_numpy().astype(float).mean())),
    ]


def _jackknifed(p: np.ndarray) -> float:
    without = [_entropy(np.delete(p, k).mean()) for k in range(len(p))]
    return len(p) * _entropy(p.mean()) - (len(p) - 1) * float(np.mean(without))


def _entropy(p: float) -> float:
    return -sum(x * np.log(x) for x in (p, 1 - p) if x > 0)


def _own(folder: Path) -> pl.DataFrame:
    return _here(_whole(folder / f"samples/{RUN[0]}/seed{RUN[1]}.parquet")).filter(pl.col("fraction") == 1)


def _read(folder: Path, table: str, kind: str, columns: list[str]) -> pl.DataFrame:
    """The run's last fraction in `table`, of the files `kind`, read whole."""
    files = sorted((folder / table / RUN[0] / f"seed{RUN[1]}").glob(f"{kind}.parquet"))
    parts = [_here(_whole(file, [*columns, "dataset", "split"])).filter(pl.col("fraction") == 1) for file in files]
    return pl.concat(parts)


def _whole(file: Path, columns: list[str] | None = None) -> pl.DataFrame:
    return pl.read_parquet(file, columns=columns).cast({pl.Categorical: pl.String})


def _here(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("dataset") == DATASET, pl.col("split") == SPLIT)


def _by_prompt(values: dict[tuple, float]) -> float:
    """Mean over prompts, which are the keys' first part, of the mean over their `values`."""
    prompts: dict[str, list[float]] = {}
    for key, value in values.items():
        prompts.setdefault(key[0], []).append(value)
    return float(np.mean([np.mean(some) for some in prompts.values()]))
