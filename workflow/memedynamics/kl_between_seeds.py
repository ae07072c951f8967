"""KL between policies of different seeds, at the positions of base samples: the noise floor of `kl` (its point 5)."""

from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path

import polars as pl

from memedynamics import curves
from memedynamics.gather import BASE, MEME, by_run, labelled, scan
from memedynamics.stats import ratio

TOKEN = ["fraction", *MEME, "sample", "position"]
LOGPS = ["logp", "ref_logp"]
COLUMNS = ["present", "k3_weighted", "tokens"]
STATISTICS: curves.Statistics = {
    "k3_weighted/all/per_response": ("nat", lambda sums: ratio(sums["k3_weighted"], sums["present"])),
    "k3_weighted/all/per_token": ("nat/token", lambda sums: ratio(sums["k3_weighted"], sums["tokens"])),
}


def base_tokens(traces: pl.LazyFrame) -> pl.DataFrame:
    """TOKEN, logp, ref_logp of every token of base samples, all milestones; about 36 bytes a token."""
    keys = pl.col(*MEME).cast(pl.Categorical)
    chosen = traces.filter(pl.col("probe_kind") == "base_sample")
    return chosen.select("fraction", keys, "sample", "position", *LOGPS).collect(engine="streaming")


def beside(tokens: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """LOGPS of `others` in the rows of `tokens`, empty where it has no such token; both from `base_tokens`.

    All runs of a study score the same texts in the same order, so mostly there is nothing to look up.
    """
    if tokens.select(TOKEN).equals(others.select(TOKEN)):
        return others.select(LOGPS)
    return tokens.select(TOKEN).join(others, on=TOKEN, how="left", maintain_order="left").select(LOGPS)


def between_seeds(policy: pl.LazyFrame, other: pl.LazyFrame) -> pl.DataFrame:
    """KL(policy‖other) of each prompt at base samples' positions, mean over responses (`kl`, 5): COLUMNS.

    Both are traces over the same probes.
    """
    ours, theirs = base_tokens(policy), base_tokens(other)
    return _between_seeds(ours.select(TOKEN), ours.select(LOGPS), beside(ours, theirs))


def _between_seeds(tokens: pl.DataFrame, policy: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    """`between_seeds` from TOKEN and, in the same rows, the two policies' LOGPS."""
    ours, reference, theirs = (pl.col(name).cast(pl.Float64) for name in (*LOGPS, "other"))
    log_ratio = theirs - ours
    value = (ours - reference).exp() * (log_ratio.exp() - 1 - log_ratio)
    rows = pl.concat([tokens, policy, other.select(other="logp")], how="horizontal").lazy()
    summed = (
        rows.select("fraction", *MEME, "position", k3_weighted=value)
        .drop_nulls("k3_weighted")
        .group_by("fraction", *MEME)
        .agg(pl.col("k3_weighted").sum(), tokens=pl.len().cast(pl.Float64), samples=(pl.col("position") == 0).sum())
        .collect(engine="streaming")
    )
    means = [pl.col(name) / pl.col("samples") for name in ("k3_weighted", "tokens")]
    return summed.with_columns(
        *means, pl.col(*MEME).cast(pl.String), present=pl.lit(1.0), probe_kind=pl.lit("base_sample")
    ).drop("samples")


def seed_pairs(traces: Sequence[Path]) -> Iterator[tuple[str, pl.DataFrame]]:
    """The other seed's name, and `between_seeds` with method and seed, of every ordered pair of seeds of one method.

    Every file is read once; one method's tokens are held in memory at a time.
    """
    runs = {run: found for run, found in by_run(traces).items() if run[0] != BASE}
    for method in sorted({name for name, _ in runs}):
        seeds = sorted(seed for name, seed in runs if name == method)
        if len(seeds) > 1:
            tokens = base_tokens(scan(runs[method, seeds[0]], "traces"))
            logps = {seeds[0]: tokens.select(LOGPS)}
            tokens = tokens.select(TOKEN)
            logps |= {seed: beside(tokens, base_tokens(scan(runs[method, seed], "traces"))) for seed in seeds[1:]}
            for seed, other in permutations(seeds, 2):
                pair = _between_seeds(tokens, logps[seed], logps[other])
                yield f"seed{other}", labelled(pair, method, seed)


def rows(frame: pl.DataFrame, versus: str, prompts: pl.DataFrame, resamples: int) -> list[dict]:
    """Rows of the table `kl` of one split of `between_seeds` with method and seed, against the seed `versus`."""
    memes, who, views = curves.place(frame, prompts, COLUMNS)
    index = [views.add(curve) for curve in range(len(who))]
    estimates = curves.evaluate(views, COLUMNS, STATISTICS, *curves.resampling(memes, resamples))
    where = {"dataset": memes["dataset"][0], "split": memes["split"][0]}
    keys = [{**where, **curve, "direction": "between_seeds", "versus": versus} for curve in who]
    return curves.level_rows(keys, views, index, estimates)
