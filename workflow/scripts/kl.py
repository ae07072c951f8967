"""Forward, reverse, decision and per-span KL of every run at every milestone, with noise floors."""

from pathlib import Path

import polars as pl

from memedynamics import gather, kl, tables
from memedynamics.job import progress, run

DECISIONS = ["fraction", "probe_kind", *gather.MEME, "p_hateful", "ref_p_hateful", "forced"]


def main(
    traces: list[Path], responses: list[Path], runs: list[Path], data: list[Path], table: Path, resamples: int
) -> None:
    """Write the analysis `kl` of the folders (or files) `traces` and `responses` of the runs and the base."""
    pairs = list(kl.seed_pairs(traces))
    tokens = []
    for (method, seed), found in progress(gather.by_run(traces).items(), "traces"):
        sums = gather.finite_sums(kl.per_response(gather.scan(found, "traces")), found, "traces")
        tokens.append(gather.labelled(sums, method, seed))
    milestones = gather.milestones(runs)
    frame = kl.measure(
        gather.whole(pl.concat(tokens), milestones, "traces"),
        gather.whole(gather.frames(responses, "responses", DECISIONS), milestones, "responses"),
        pairs,
        gather.prompts(data),
        milestones,
        resamples,
    )
    tables.write(frame, table, "kl")


if __name__ == "__main__":
    run(main)
