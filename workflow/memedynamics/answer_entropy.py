"""Each prompt's K answers in numbers: entropies by every estimator, shares of the answers, the decision's errors."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from memedynamics.calibration import confidence, wrong
from memedynamics.errors import InputError
from memedynamics.gather import CURVE, MEME
from memedynamics.information import binary, decompose, gini, plug_in, posterior_mean

CONFIDENT = 0.9

# Named as their rows: estimator/invalid/span/coverage/statistic.
TERMS = ("entropy", "entropy_given_rationale", "information_rationale")
MEASURES = {
    f"{estimator}/{invalid}///{statistic}": "nat"
    for estimator in ("exact", "exact_uncorrected")
    for invalid in ("forced", "dropped", "third")
    for statistic in TERMS
}
MEASURES |= {
    f"{estimator}/{i}///entropy": "nat" for estimator in ("plug_in", "posterior") for i in ("dropped", "third")
}
MEASURES |= {f"unbiased/{invalid}///gini": "1" for invalid in ("dropped", "third")}
COUNTED = ["right", "brier", "sure", "sure_wrong"]
SHARES = {
    "exact/forced": ["q", "not_q"],
    "plug_in/dropped": ["yes", "no"],
    "plug_in/third": ["yes", "no", "invalid"],
}
COLUMNS = ["present", *COUNTED, "q", "not_q", "yes", "no", "invalid"]
COLUMNS += [column for measure in MEASURES for column in (measure, f"{measure}#")]


def stacked(frames: Mapping[Path, pl.DataFrame]) -> tuple[pl.DataFrame, int]:
    """The tables of samples by their file, stacked, and their common K.

    Raises InputError naming the file whose prompts have not all the K of the first.
    """
    common = None
    for path, frame in frames.items():
        counts = frame.group_by(*CURVE, *MEME).len()["len"].unique().sort().to_list()
        common = counts[-1] if common is None else common
        if counts != [common]:
            found = " and ".join(map(str, counts))
            raise InputError(
                f"{path}: {found} responses a prompt, not {common} as elsewhere; delete it and sample anew"
            )
    return pl.concat(frames.values()), common


def per_prompt(samples: pl.DataFrame, prompts: pl.DataFrame, num_samples: int) -> pl.DataFrame:
    """The columns COLUMNS of each prompt, by CURVE and MEME; a measure that a prompt lacks is 0, as is its `…#`.

    `samples`: schema `samples` with method, seed and probe_kind, `num_samples` (K) rows a prompt.
    """
    rows = samples.join(prompts.select(*MEME, "label"), on=MEME).sort(*CURVE, *MEME, "sample")
    keys = rows.gather_every(num_samples).select(*CURVE, *MEME, "label")

    def wide(values: pl.Series) -> np.ndarray:
        return values.to_numpy().reshape(-1, num_samples)

    q, mass, forced = (wide(rows[name]) for name in ("p_hateful", "label_mass", "forced"))
    answers = np.stack([wide(rows["answer"] == answer) for answer in ("yes", "no")], axis=-1)
    counts = np.concatenate([answers.sum(1), (~answers.any(-1)).sum(1)[:, None]], axis=1).astype(float)
    columns = _measures(q, mass, forced, counts) | _decided(q.mean(1), keys["label"].to_numpy())
    columns |= dict(zip(("yes", "no", "invalid"), counts.T / num_samples, strict=True))
    return keys.with_columns(present=pl.lit(1.0), right=pl.Series(wide(rows["correct"]).mean(1)), **columns)


def _measures(q: np.ndarray, mass: np.ndarray, forced: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """MEASURES from P(Yes), label mass and forced (n, K), and the counts of yes, no, invalid (n, 3)."""
    mass = np.where(forced, 0.0, np.clip(mass, 0, 1))
    third = np.concatenate([binary(q) * mass[..., None], 1 - mass[..., None]], axis=-1)
    every = np.ones_like(forced)
    found: dict[str, np.ndarray] = {}
    for invalid, (p, used) in {
        "forced": (binary(q), every), "dropped": (binary(q), ~forced), "third": (third, every)
    }.items():  # fmt: skip
        part = decompose(p, used)
        exact, plain = (part.jackknifed_total, part.jackknifed_information), (part.total, part.information)
        for estimator, (total, information) in {"exact": exact, "exact_uncorrected": plain}.items():
            # The terms rest on the same prompts, or they would not add up: the jackknife needs two rationales.
            values = (total, np.where(np.isnan(total), np.nan, part.given), information)
            found |= {f"{estimator}/{invalid}///{t}": v for t, v in zip(TERMS, values, strict=True)}
    for invalid, seen in {"dropped": counts[:, :2], "third": counts}.items():
        found[f"plug_in/{invalid}///entropy"] = plug_in(seen)
        found[f"posterior/{invalid}///entropy"] = posterior_mean(seen)
        found[f"unbiased/{invalid}///gini"] = gini(seen)
    known = {f"{name}#": (~np.isnan(values)).astype(float) for name, values in found.items()}
    return {name: np.nan_to_num(values) for name, values in found.items()} | known


def _decided(q: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    sure = confidence(q) >= CONFIDENT
    found = {"q": q, "not_q": 1 - q, "brier": (q - labels) ** 2, "sure": sure, "sure_wrong": sure & wrong(q, labels)}
    return {name: values.astype(float) for name, values in found.items()}
