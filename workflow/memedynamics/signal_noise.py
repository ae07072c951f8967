"""Signal and noise of the gradients: do the memes of a split pull the adapter in one direction?

1. Gradients of the gold answer's NLL behind the fixed base text, with respect to the factor B of each adapted layer,
   one a meme: ḡ their mean, s² their variance. One scalar for all methods, whatever they were trained on. B, since in
   the base's fresh adapter B = 0 and A has no gradient; the base's is that of a fresh adapter of the study.
2. `snr` = Σḡ²/Σs² − 1/n, sums over a layer's entries (module `all`: over all layers'). The plug-in Σḡ²/Σs²
   (`snr_plug_in`) has a floor of 1/n, which noise alone reaches: E ḡ² = (E g)² + s²/n.
3. `gsnr` = the mean of ḡ²/s² over the entries that vary, less 1/n (Liu et al., ICLR 2020, bias-corrected);
   `gsnr_plug_in` without. Of Gaussian gradients it is still too large by the factor (n − 1)/(n − 3) of E 1/s²; `snr`
   is not.
4. `osgr`: one-step generalisation ratio, by how much a step on these n memes lowers the expected loss, relative to
   their own: R = Σ(E g)²/Σ((E g)² + s²/n) = snr/(snr + 1/n) (Liu et al.; with their weights W_j those of plain gradient
   descent, which makes it a function of `snr`), from 0 to 1: an `snr` below 0, noise alone, counts as 0, in resamples
   too, so that intervals may start or lie at 0. It depends on n, and takes the memes as fresh draws; `osgr_measured`
   does not: ⟨ḡ_train, ḡ_val⟩/|ḡ_train|², to first order what a step on the train memes does for val, relative to train.
5. Intervals of `snr` and `osgr` of module `all` are the cluster bootstrap over the memes' sketches (`moments`), whose
   replicates are corrected for the noise that resampling adds, s²/n, and scaled to the exact value. Those of `gsnr`,
   whose ratios of single entries no sketch has, and of single layers are a jackknife over ten groups of memes (equal
   captions in one) on some of the entries (`moments`), of the logarithm of the plug-in with Student's t: of 95 % they
   hold the mean estimate in 90 to 99 %, more where there is no signal. `osgr`'s go with `snr`'s. There are none where
   the memes make under three groups.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from memedynamics import curves, stats
from memedynamics.gather import MEME
from memedynamics.gradient_cosines import jackknife

RUN = ["method", "seed", "fraction"]
WITHOUT = "its weights are not LoRA factors, whose gradients are compared"


class Strengths(NamedTuple):
    """Squared mean and variance of gradients, exact or by replicate, and how many memes they are of."""

    mean_sq: np.ndarray
    var: np.ndarray
    n: int


def snr(found: Strengths) -> np.ndarray:
    """(ḡ² − s²/n)/s², the bias-corrected signal-to-noise ratio; NaN without variance."""
    return stats.ratio(found.mean_sq, found.var) - 1 / found.n


def osgr(ratio: np.ndarray, n: int) -> np.ndarray:
    """r/(r + 1/n), from 0 to 1: the one-step generalisation ratio at signal-to-noise ratio r (Liu et al., ICLR 2020).

    A bias-corrected r below 0 is noise alone and counts as 0.
    """
    ratio = np.maximum(ratio, 0)
    return stats.ratio(ratio, ratio + 1 / n)


def rows(signals: pl.DataFrame, extracts: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> list[dict]:
    """The rows of the analysis `sharpe` that are of gradients.

    `signals`: schema `extract_signal`, `extracts`: `extract_sharpe`, each with method and seed.
    """
    exact = _whole(signals)
    found = [row for part in signals.iter_rows(named=True) for row in _values(part)]
    sketches = extracts.filter(group="all").drop_nulls("gradient")
    for _, part in sorted(sketches.group_by("method", "seed", "fraction", "dataset"), key=lambda item: str(item[0])):
        found += _with_intervals(part, exact, prompts, resamples)
    return found + _missing(signals, extracts)


def _whole(signals: pl.DataFrame) -> pl.DataFrame:
    """The whole adapter's strengths: sums over its layers, and the mean ratio over all entries that vary."""
    varying = pl.col("varying").filter(pl.col("ratio").is_not_null())
    weighted = (pl.col("ratio") * pl.col("varying")).sum() / varying.sum()
    kept = pl.col("gsnr_without").is_not_null()
    whole = signals.group_by(*RUN, "dataset", "split").agg(
        pl.col("mean_sq", "var").sum(),
        pl.col("n").first(),
        pl.col("gsnr_without", "varying").filter(kept),
        ratio=weighted,
        module=pl.lit("all"),
    )
    without = [
        np.average(left, axis=0, weights=share) if left else None
        for left, share in zip(whole["gsnr_without"].to_list(), whole["varying"].to_list(), strict=True)
    ]
    # Its other intervals are the bootstrap's.
    columns = {"gsnr_without": pl.Series(without, dtype=pl.List(pl.Float64)), "snr_without": pl.lit(None)}
    return whole.drop("varying").with_columns(**columns)


def _values(row: dict) -> Iterator[dict]:
    """The statistics of one layer, or of the whole, at one milestone."""
    n, none = row["n"], float("nan")
    plug_in = stats.ratio(row["mean_sq"], row["var"]).item()
    each = none if row["ratio"] is None else row["ratio"]
    found = {}
    for name, value in {"snr": plug_in, "gsnr": each}.items():
        found[f"{name}_plug_in"] = np.array([value, *_jackknifed(value, row[f"{name}_without"])])
        found[name] = found[f"{name}_plug_in"] - 1 / n
    if row["split"] == "train":
        found["osgr"] = osgr(found["snr"], n)
    return (_row(row, row["module"], name, numbers.tolist(), n) for name, numbers in found.items())


def _jackknifed(value: float, without: list[float] | None) -> tuple[float, float]:
    """95 % interval of `value` above 0 from the values `without` each group of memes; NaN where there are none."""
    low, high = jackknife(np.log(value), np.log(without or []), bounded=False)
    return np.exp(low).item(), np.exp(high).item()


def _row(row: dict, module: str, statistic: str, numbers: Sequence[float], n: int) -> dict:
    """`numbers`: value and interval."""
    key = {name: row[name] for name in (*RUN, "dataset", "split")}
    own = {"group": "gradient", "module": module, "label": "all", "versus": None, "statistic": statistic}
    return {**key, **own, **dict(zip(("value", "ci_low", "ci_high"), numbers, strict=True)), "n": n, "unit": "1"}


def _with_intervals(sketches: pl.DataFrame, exact: pl.DataFrame, prompts: pl.DataFrame, resamples: int) -> list[dict]:
    """The whole adapter's statistics at one milestone of one run."""
    memes = prompts.join(sketches.select(MEME), on=MEME, how="semi").sort(MEME)
    vectors = np.stack(memes.join(sketches, on=MEME, how="left", maintain_order="left")["gradient"].to_list())
    cluster, weights = curves.resampling(memes, resamples)
    run, means, found = sketches.row(0, named=True), {}, []
    for split in sorted(set(memes["split"])):
        row = exact.filter(
            pl.col("method") == run["method"], pl.col("seed").eq_missing(run["seed"]),
            fraction=run["fraction"], dataset=run["dataset"], split=split,
        ).row(0, named=True)  # fmt: skip
        here = (memes["split"] == split).to_numpy()
        drawn = Resampled.of(vectors[here], cluster[here], weights)
        means[split] = drawn, row
        replicates = drawn.plug_in() * (row["mean_sq"] / row["var"]) / drawn.plain
        spread = {"snr": replicates - 1 / row["n"], "snr_plug_in": replicates}
        spread["osgr"] = osgr(spread["snr"], row["n"])
        for known in _values(row):
            if known["statistic"] in spread:
                low, high = stats.interval(spread[known["statistic"]])
                known |= {"ci_low": float(low), "ci_high": float(high)}
            found.append(known)
    return found + (_measured(means) if {"train", "val"} <= set(means) else [])


class Resampled(NamedTuple):
    """Sketches of n memes: their mean, and by resample the mean and what its norm owes to resampling."""

    mean: np.ndarray  # (SIZE,)
    means: np.ndarray  # (R, SIZE)
    var: np.ndarray  # (R,) Σ s²
    n: int
    plain: float  # plug-in of the sample itself

    @classmethod
    def of(cls, vectors: np.ndarray, cluster: np.ndarray, weights: np.ndarray) -> "Resampled":
        """Of `vectors` (n, SIZE) under `weights` (R, clusters)."""
        vectors = vectors.astype(np.float64)
        n, norms = len(vectors), np.square(vectors).sum(1)
        size, total, squares = (
            stats.resampled_sums(values, cluster, weights) for values in (np.ones(n), vectors, norms)
        )
        means = stats.ratio(total, np.repeat(size[:, None], total.shape[1], 1))
        var = stats.ratio(squares - size * np.square(means).sum(1), size - 1)
        mean = vectors.mean(0)
        own = np.square(vectors - mean).sum() / (n - 1)
        return cls(mean, means, var, n, float(stats.ratio(np.square(mean).sum(), own)))

    def squared(self) -> np.ndarray:
        """|ḡ|² of every resample without the part that resampling adds, s²/n: (R,)."""
        return np.square(self.means).sum(1) - self.var / self.n

    def plug_in(self) -> np.ndarray:
        """ḡ²/s² of every resample: (R,)."""
        return stats.ratio(self.squared(), self.var)


def _measured(means: dict[str, tuple[Resampled, dict]]) -> list[dict]:
    (train, row), (val, other) = means["train"], means["val"]
    value = train.mean @ val.mean / row["mean_sq"]
    # Scaled to the exact value on average: subtracting what resampling adds could leave nothing to divide by.
    norms = np.square(train.means).sum(1)
    replicates = stats.ratio((train.means * val.means).sum(1), norms * (row["mean_sq"] / np.nanmean(norms)))
    low, high = stats.interval(replicates)
    n = min(row["n"], other["n"])
    return [_row({**row, "split": "train-val"}, "all", "osgr_measured", (float(value), float(low), float(high)), n)]


def _missing(signals: pl.DataFrame, extracts: pl.DataFrame) -> list[dict]:
    """A row for every milestone of a run that has contributions of features but no gradients of factors."""
    split = ["dataset", "split"]
    known = signals.select(RUN).unique()
    lacking = (
        extracts.filter(split="val").select(*RUN, *split).unique().join(known, on=RUN, how="anti", nulls_equal=True)
    )
    none = (np.nan,) * 3
    return [_row(row, "all", "snr", none, 0) | {"missing": WITHOUT} for row in lacking.sort(RUN).to_dicts()]
