"""Which Sharpe ratios of φ to leave out: those of features where φ does not agree with what occlusion finds.

1. φ is a first-order reading of a feature's effect; where the interval of `occlusion_correlation` is not above 0, it is
   not known to have even the right sign, and a ratio of it would be read as if it had. The ratio is then empty and says
   so in `missing`; mean and standard deviation of φ stay, and so do the ratios of the occlusion effects.
2. Occlusion is of the last fraction: its verdict on a run, feature and split holds for all of the run's fractions. What
   rests on two splits, or on two runs, needs the agreement of both. A cell of the picture goes with the picture, a word
   with the caption. Group `all` and `importance_ratio` are not judged: no occlusion is of either.
"""

from collections.abc import Iterator, Sequence

from memedynamics.gather import BASE

DISAGREES = "φ does not agree with occlusion: the interval of occlusion_correlation is not above 0"
JUDGED = {"sharpe_ratio", "overfit_index", "overfit_index_difference"}
PARTS = {"cell_": "image", "word:": "caption"}
EMPTY = {"value": float("nan"), "ci_low": float("nan"), "ci_high": float("nan"), "missing": DISAGREES}


def blanked(rows: Sequence[dict]) -> list[dict]:
    """`rows` of the analysis `sharpe`, the ratios of φ emptied where φ does not agree with occlusion."""
    # An interval that is NaN is above nothing.
    failed = {_key(row) for row in rows if row["statistic"] == "occlusion_correlation" and not row["ci_low"] > 0}
    return [row | EMPTY if row["statistic"] in JUDGED and failed & set(_rests_on(row)) else row for row in rows]


def _key(row: dict) -> tuple:
    return tuple(row[name] for name in ("method", "seed", "dataset", "split", "group"))


def _rests_on(row: dict) -> Iterator[tuple]:
    """Keys of the correlations that a row of φ rests on."""
    group = next((whole for start, whole in PARTS.items() if row["group"].startswith(start)), row["group"])
    runs = [(row["method"], row["seed"])]
    if row["versus"]:
        runs.append((row["versus"], None if row["versus"] == BASE else row["seed"]))
    splits = ("train", "val") if row["split"] == "train-val" else (row["split"],)
    return ((*run, row["dataset"], split, group) for run in runs for split in splits)
