"""Overfitting seen in the features: Sharpe ratios of what each feature contributes to the decision.

1. φ: contribution of a feature group to the decision log-odds toward the gold label, gradient × input
   (`attributions`). `sharpe_ratio` SR = mean φ / std φ over memes: how reliably the feature speaks for the label.
2. `overfit_index` = SR on train − SR on val (split `train-val`). Some of it is the memes': the base, which saw neither,
   has one too. `overfit_index_difference`, paired, is what training added (versus base) and what methods differ by.
   Positive: the feature speaks more reliably for labels that were trained on.
3. `importance_ratio` = Σ|φ_image| / Σ|φ_text|, text the user's words: question and caption (group image:text).
4. φ is a first-order reading: it misses what saturates, and normalisation layers make Σφ small. `occlusion_correlation`
   says, group by group, how far it agrees with occlusion; the ratios of the occlusion effects themselves stand beside
   it (`occlusion_sharpe_ratio`, `occlusion_overfit_index`), on the half of the memes that were occluded, and at the
   last fraction alone, since it takes another forward pass a group. Where φ does not agree with occlusion, its ratios
   and indices are left out and `missing` says so: see `sharpe_check`.
5. The interval is the cluster bootstrap over memes; for independent normal φ it is close to SR ± 1.96 √((1 + SR²/2)/n)
   (Lo 2002). Strata: all memes, benign, hateful; of `occlusion_correlation`, and of the ratios of cells of the
   picture and of frequent words, all alone.
6. A meme without a group (no caption, no rationale) is left out of that group's statistics: see n.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import polars as pl

from memedynamics import curves
from memedynamics.gather import BASE, CURVE, MEME
from memedynamics.sharpe_check import blanked
from memedynamics.sharpe_ratio import correlation, deviation, sharpe_ratio
from memedynamics.stats import ratio

GROUPS = ("system", "image", "question", "caption", "header", "rationale", "format")
TEXT = ("question", "caption")  # the user's words
FREQUENT, WORDS = 20, 12  # a word's ratio takes so many train memes; so many words are kept

COLUMNS = ["present", "phi", "phi_squared"]
CHECK_COLUMNS = [*COLUMNS, "occlusion", "occlusion_squared", "product"]
BY_LABEL = {"benign": (0,), "hateful": (1,)}
STRATA = {"all": (0, 1), **BY_LABEL}


RATIO: curves.Statistics = {
    "sharpe_ratio": ("1", lambda s: sharpe_ratio(s["present"], s["phi"], s["phi_squared"])),
}
STATISTICS: curves.Statistics = RATIO | {
    "mean_phi": ("nat", lambda s: ratio(s["phi"], s["present"])),
    "std_phi": ("nat", lambda s: deviation(s["present"], s["phi"], s["phi_squared"])),
}
OCCLUSION: curves.Statistics = {
    "occlusion_sharpe_ratio": ("1", lambda s: sharpe_ratio(s["present"], s["occlusion"], s["occlusion_squared"])),
}
CHECKS: curves.Statistics = OCCLUSION | {"occlusion_correlation": ("1", correlation)}
IMPORTANCE: curves.Statistics = {"importance_ratio": ("1", lambda s: ratio(s["phi"], s["text"]))}


def per_meme(extracts: pl.DataFrame) -> pl.DataFrame:
    """`extracts` (schema `extract_sharpe` with method and seed) as numbers by group, CURVE and MEME."""
    phi, occlusion = pl.col("phi"), pl.col("occlusion")
    return extracts.select(
        *CURVE[:3], pl.lit("base_sample").alias("probe_kind"), *MEME, "group", "phi", "occlusion",
        present=pl.lit(1.0), phi_squared=phi**2, occlusion_squared=occlusion**2, product=phi * occlusion,
    )  # fmt: skip


def rows(extracts: pl.DataFrame, prompts: pl.DataFrame, resamples: int, in_domain: str) -> list[dict]:
    """The rows of the analysis `sharpe` that are of attributions. `prompts` from gather.prompts."""
    numbers = per_meme(extracts)
    found: list[dict] = []
    for group, frame in _by_group(numbers, ("all", *GROUPS)):
        checked = frame.drop_nulls("occlusion")
        found += _levels(frame, group, prompts, resamples, COLUMNS, STATISTICS, STRATA)
        found += _levels(checked, group, prompts, resamples, CHECK_COLUMNS, CHECKS, {"all": STRATA["all"]})
        found += _levels(checked, group, prompts, resamples, CHECK_COLUMNS, OCCLUSION, BY_LABEL)
        home = pl.col("dataset") == in_domain
        found += _gaps(frame.filter(home), group, prompts, resamples, COLUMNS, RATIO, "overfit_index")
        found += _gaps(
            checked.filter(home), group, prompts, resamples, CHECK_COLUMNS, OCCLUSION, "occlusion_overfit_index"
        )
    for group, frame in _by_group(numbers, _parts(numbers, in_domain)):
        found += _levels(frame, group, prompts, resamples, COLUMNS, RATIO, {"all": STRATA["all"]})
    images = _importance(numbers)
    found += _levels(images, "image:text", prompts, resamples, ["present", "phi", "text"], IMPORTANCE, STRATA)
    return blanked(found)


def _by_group(numbers: pl.DataFrame, names: Sequence[str]) -> Iterator[tuple[str, pl.DataFrame]]:
    found = {name: frame for (name,), frame in numbers.group_by("group")}
    return ((name, found[name]) for name in names if name in found)


def _parts(numbers: pl.DataFrame, in_domain: str) -> list[str]:
    """The picture's cells, and the words that most train memes have."""
    words = numbers.filter(pl.col("group").str.starts_with("word:"), dataset=in_domain, split="train")
    counted = words.group_by("group").agg(n=pl.col("id").n_unique()).filter(pl.col("n") >= FREQUENT)
    frequent = counted.sort("n", "group", descending=[True, False])["group"].head(WORDS).to_list()
    return sorted(g for g in numbers["group"].unique() if g.startswith("cell_")) + frequent


def _importance(numbers: pl.DataFrame) -> pl.DataFrame:
    """Memes' |φ| of the picture and of the user's words, as columns phi and text."""
    keys = [*CURVE, *MEME]
    said = numbers.filter(pl.col("group").is_in(TEXT)).group_by(keys).agg(text=pl.col("phi").sum().abs())
    seen = numbers.filter(group="image").with_columns(pl.col("phi").abs())
    return seen.join(said, on=keys, nulls_equal=True)


def _levels(
    frame: pl.DataFrame, group: str, prompts: pl.DataFrame, resamples: int, columns: list[str],
    statistics: curves.Statistics, strata: dict[str, tuple[int, ...]],
) -> list[dict]:  # fmt: skip
    found: list[dict] = []
    for part in curves.by_split(frame) if len(frame) else []:
        memes, who, views = curves.place(part, prompts, columns)
        index, keys = [], []
        for label, labels in strata.items():
            mask = np.isin(memes["label"].to_numpy(), labels)
            index += [views.add(curve, mask) for curve in range(len(who))]
            where = {"dataset": memes["dataset"][0], "split": memes["split"][0]}
            keys += [where | _key(curve, group, label) for curve in who]
        estimates = curves.evaluate(views, columns, statistics, *curves.resampling(memes, resamples))
        found += curves.level_rows(keys, views, index, estimates)
    return found


def _gaps(
    frame: pl.DataFrame, group: str, prompts: pl.DataFrame, resamples: int, columns: list[str],
    statistics: curves.Statistics, name: str,
) -> list[dict]:  # fmt: skip
    """Train minus val of every curve that has both, by stratum, and what methods differ by."""
    both = frame.filter(pl.col("split").is_in(["train", "val"]))
    both = both.filter((pl.col("split").n_unique() == 2).over(CURVE))
    if both.is_empty():
        return []
    memes, who, views = curves.place(both, prompts, columns)
    train, labels = (memes["split"] == "train").to_numpy(), memes["label"].to_numpy()
    weights = curves.resampling(memes, resamples)
    found: list[dict] = []
    masks = {label: np.isin(labels, wanted) for label, wanted in STRATA.items()}
    pairs = {
        label: [(views.add(curve, mask & train), views.add(curve, mask & ~train)) for curve in range(len(who))]
        for label, mask in masks.items()
    }
    (estimate,) = curves.evaluate(views, columns, statistics, *weights).values()
    for label, some in pairs.items():
        keys = [{"dataset": memes["dataset"][0], "split": "train-val", **_key(curve, group, label)} for curve in who]
        gaps = Gaps.of(views, some, estimate)
        found += curves.level_rows(keys, gaps, range(len(who)), {name: gaps.estimate})
        compared = _comparisons(who)
        against = [{**keys[a], "versus": who[b]["method"]} for a, b in compared]
        found += curves.difference_rows(against, gaps, compared, {name: gaps.estimate})
    return found


class Gaps:
    """Differences of pairs of views, to be reported like views themselves."""

    def __init__(self, estimate: curves.Estimate, sizes: Sequence[int]) -> None:
        self.estimate, self.sizes = estimate, sizes

    @classmethod
    def of(cls, views: curves.Views, pairs: Sequence[tuple[int, int]], estimate: curves.Estimate) -> "Gaps":
        """First minus second of each of `pairs`; a gap's size is the smaller view's."""
        first, second = (list(side) for side in zip(*pairs, strict=True))
        value, replicates, unit = estimate
        gap = curves.Estimate(value[first] - value[second], replicates[:, first] - replicates[:, second], unit)
        return cls(gap, [min(views.size(a), views.size(b)) for a, b in pairs])

    def size(self, gap: int) -> int:
        """Memes a gap rests on."""
        return self.sizes[gap]


def _key(curve: dict, group: str, label: str) -> dict:
    named = {name: curve[name] for name in CURVE[:3]}
    return {**named, "group": group, "module": None, "label": label, "versus": None}


def _comparisons(who: list[dict]) -> list[tuple[int, int]]:
    """Indices of curves to compare: each policy with the base, and methods at equal seed and milestone."""
    base = [i for i, curve in enumerate(who) if curve["method"] == BASE]
    policies = [i for i, curve in enumerate(who) if curve["method"] != BASE]
    condition = [(curve["seed"], curve["fraction"]) for curve in who]
    matched = [(a, b) for a, b in combinations(policies, 2) if condition[a] == condition[b]]
    return [(i, j) for i in policies for j in base] + matched
