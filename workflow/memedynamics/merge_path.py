"""What lies between two runs: accuracy and forward KL of the models on the way from one to the other.

1. The way is through weight space: W0 + (1−t)·ΔA + t·ΔB (linear), or along the arc between ΔA and ΔB (slerp; module
   `merging`). t = 0 is the run `method`, t = 1 the run `versus` of the same seed.
2. `accuracy`: the decision after the base's own responses, P(Yes | Yes or No) on the label's side of ½, mean over a
   prompt's responses: the `probe_accuracy` of the analysis accuracy, which no sampling noise enters. `kl_forward`:
   KL(π0‖π_t), nat a response, of the same responses, as in the analysis kl.
3. `…_off_line`: the value minus the straight line between the two ends, prompt by prompt, so that its interval is
   paired. An accuracy below 0 is a barrier (linear mode connectivity: Frankle et al. 1912.05671); a KL below 0 says
   that the merge is nearer to the base than its ends are on average.
4. The ends are the runs themselves, but with their updates written into the weights: under half precision each weight
   is rounded once, while scoring adds an adapter's output to the base's, so they agree to that rounding.
5. In-domain val alone: nothing is chosen on it, it shows the way.
"""

from collections.abc import Sequence

import polars as pl

from memedynamics import curves
from memedynamics.errors import InputError
from memedynamics.gather import MEME, finish
from memedynamics.stats import ratio

KEYS = ["way", "t"]
RUN = ["method", "versus", "seed"]
MEASURES = ("accuracy", "kl_forward")
OFF_LINE = [f"{name}_off_line" for name in MEASURES]
COLUMNS = ["present", *MEASURES, *OFF_LINE]
UNITS = {"accuracy": "1", "kl_forward": "nat"}

STATISTICS: curves.Statistics = {
    name: (UNITS[name.removesuffix("_off_line")], lambda sums, name=name: ratio(sums[name], sums["present"]))
    for name in (*MEASURES, *OFF_LINE)
}


def named(extracts: pl.DataFrame, pairs: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """`extracts`, whose `method` is the folder's `first__second`, with the two methods as `method` and `versus`.

    Raises InputError where a folder is none of `pairs`.
    """
    known = {f"{first}__{second}": (first, second) for first, second in pairs}
    if strange := sorted(set(extracts["method"]) - set(known)):
        raise InputError(f"extracts/merge_path/{strange[0]}: no such pair in the study's merge_path; delete it")
    both = [pl.col("method").replace_strict({name: pair[i] for name, pair in known.items()}) for i in (0, 1)]
    return extracts.with_columns(method=both[0], versus=both[1])


def per_prompt(extracts: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """COLUMNS by RUN, KEYS and MEME: means over each prompt's responses. `extracts` from `named`.

    Raises InputError where a prompt was measured at some points of the way only.
    """
    right = (pl.col("p_hateful") >= 0.5) == (pl.col("label") == 1)
    means = {"accuracy": right.cast(pl.Float64).mean(), "kl_forward": pl.col("kl_forward").mean()}
    labelled = extracts.join(prompts.select(*MEME, "label"), on=MEME)
    frame = labelled.group_by(*RUN, *KEYS, *MEME).agg(**means).with_columns(present=pl.lit(1.0))
    _check_whole(frame)
    ends = {}
    for end in (0.0, 1.0):
        ends[end] = frame.filter(t=end).select(*RUN, "way", *MEME, **{f"{name}_{end:g}": name for name in MEASURES})
    keys = [*RUN, "way", *MEME]
    joined = frame.join(ends[0.0], on=keys, nulls_equal=True).join(ends[1.0], on=keys, nulls_equal=True)
    # Rounded: 0.1 and 0.9 do not add up to 1, and a straight line would be off itself by 1e-17.
    line = {
        f"{name}_off_line": (
            pl.col(name) - (1 - pl.col("t")) * pl.col(f"{name}_0") - pl.col("t") * pl.col(f"{name}_1")
        ).round(12)
        for name in MEASURES
    }
    return joined.with_columns(**line).select(*keys, "t", *COLUMNS)


def _check_whole(frame: pl.DataFrame) -> None:
    places = frame.group_by(*RUN, "way", *MEME).agg(n=pl.len(), low=pl.col("t").min(), high=pl.col("t").max())
    wanted = frame.select("way", "t").n_unique() / frame["way"].n_unique()
    cut = places.filter((pl.col("n") != wanted) | (pl.col("low") != 0) | (pl.col("high") != 1))
    if len(cut):
        first, second, seed = cut.select(RUN).row(0)
        raise InputError(
            f"extracts/merge_path/{first}__{second}/seed{seed}.parquet: points of the way are missing; delete it"
        )


def measure(
    extracts: pl.DataFrame,
    pairs: Sequence[tuple[str, str]],
    prompts: pl.DataFrame,
    runs: pl.DataFrame,
    resamples: int,
) -> pl.DataFrame:
    """The analysis `merge_path`, in its schema (`study` left to the writer).

    `extracts`: schema `extract_merge_path` with method and seed; `prompts` and `runs` from `gather`.
    """
    numbers = per_prompt(named(extracts, pairs), prompts)
    # A point of the way stands where curves have their kind of probe.
    point = pl.concat_str("versus", "way", pl.col("t").cast(pl.String), separator="/")
    frame = numbers.with_columns(probe_kind=point, fraction=pl.lit(1.0))
    rows = curves.levels(frame, prompts, COLUMNS, STATISTICS, resamples)
    parts = pl.col("probe_kind").str.split("/")
    table = pl.DataFrame(rows, infer_schema_length=None).with_columns(
        versus=parts.list.get(0), way=parts.list.get(1), t=parts.list.get(2).cast(pl.Float64)
    )
    return finish(table.drop("probe_kind"), runs)
