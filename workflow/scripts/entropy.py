"""Entropy of the answers, its parts, what they tell, and how well confidence is calibrated, of every run."""

from pathlib import Path

import polars as pl

from memedynamics import answer_entropy, entropy, gather, tables, token_entropy
from memedynamics.job import progress, run

ANSWERS = ["fraction", *gather.MEME, "sample", "answer", "correct", "p_hateful", "label_mass", "forced"]


def main(
    samples: list[Path],
    base: list[Path],
    traces: list[Path],
    runs: list[Path],
    data: list[Path],
    table: Path,
    resamples: int,
) -> None:
    """Write the analysis `entropy` of the runs' `samples` and the `base`'s, and of the folders (or files) `traces`."""
    kinds = {path: "base_sample" for path in base} | {path: "own_sample" for path in samples}
    answers, num_samples = answer_entropy.stacked(
        {
            path: gather.frames([path], "samples", ANSWERS).with_columns(probe_kind=pl.lit(kind))
            for path, kind in kinds.items()
        }
    )
    tokens = []
    for (method, seed), found in progress(gather.by_run(traces).items(), "traces"):
        sums = gather.finite_sums(token_entropy.per_prompt(gather.scan(found, "traces")), found, "traces")
        tokens.append(gather.labelled(sums, method, seed))
    prompts, milestones = gather.prompts(data), gather.milestones(runs)
    frame = entropy.measure(
        answer_entropy.per_prompt(gather.whole(answers, milestones, "samples"), prompts, num_samples),
        gather.whole(pl.concat(tokens), milestones, "traces"),
        prompts,
        milestones,
        resamples,
    )
    tables.write(frame, table, "entropy")


if __name__ == "__main__":
    run(main)
