"""Forward, reverse, decision and per-span KL of every run at every milestone, with noise floors."""

from pathlib import Path

import polars as pl

from memedynamics import gather, kl, kl_between_seeds, tables
from memedynamics.job import progress, run

DECISIONS = ["fraction", "probe_kind", *gather.MEME, "p_hateful", "ref_p_hateful", "forced"]


def main(
    traces: list[Path],
    responses: list[Path],
    runs: list[Path],
    data: list[Path],
    table: Path,
    resamples: int,
    parents: dict[str, str] | None = None,
    traces_to_parent: list[Path] | None = None,
    responses_to_parent: list[Path] | None = None,
) -> None:
    """Write the analysis `kl` of the folders (or files) `traces` and `responses` of the runs and the base.

    `parents` names, by method, the run it began at; those runs are measured against it too.
    """
    prompts, milestones = gather.prompts(data), gather.milestones(runs)
    pairs = list(kl_between_seeds.seed_pairs(traces))
    frame = kl.measure(*read(traces, responses, milestones), pairs, prompts, milestones, resamples)
    # The start is the reference itself. Runs of two parents are read on different texts, so they are not compared.
    later = milestones.filter(pl.col("fraction") > 0)
    for parent in sorted(set((parents or {}).values())):
        found = read(of(parent, parents, traces_to_parent), of(parent, parents, responses_to_parent), later)
        to_parent = kl.measure(*found, [], prompts, later, resamples)
        frame = pl.concat([frame, to_parent.with_columns(reference=pl.lit(parent))])
    tables.write(frame, table, "kl")


def of(parent: str, parents: dict[str, str], paths: list[Path]) -> list[Path]:
    """Those of `paths` that are of runs that began at `parent`."""
    return [path for path in paths if parents[gather.run_of(path)[0]] == parent]


def read(traces: list[Path], responses: list[Path], milestones: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sums over tokens, and decisions, of every response at all milestones of its run."""
    tokens = []
    for (method, seed), found in progress(gather.by_run(traces).items(), "traces"):
        sums = gather.finite_sums(kl.per_response(gather.scan(found, "traces")), found, "traces")
        tokens.append(gather.labelled(sums, method, seed))
    decisions = gather.frames(responses, "responses", DECISIONS)
    return gather.whole(pl.concat(tokens), milestones, "traces"), gather.whole(decisions, milestones, "responses")


if __name__ == "__main__":
    run(main)
