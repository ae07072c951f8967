"""Accuracy, F1, AUROC, format and paired tests of every run at every milestone."""

from pathlib import Path

import polars as pl

from memedynamics import accuracy, gather, tables
from memedynamics.job import run

ANSWERS = ["fraction", *gather.MEME, "token_ids", "finish_reason", "answer", "format_ok", "correct"]
ANSWERS += ["p_hateful", "forced"]
DECISIONS = ["fraction", "probe_kind", *gather.MEME, "p_hateful"]


def answers(paths: list[Path], probe_kind: str) -> pl.DataFrame:
    """The samples at `paths` with their length in place of their tokens, one table at a time."""
    frames = [gather.frames([path], "samples", ANSWERS) for path in paths]
    short = [frame.with_columns(length=pl.col("token_ids").list.len()).drop("token_ids") for frame in frames]
    return pl.concat(short).with_columns(probe_kind=pl.lit(probe_kind))


def main(
    samples: list[Path],
    base: list[Path],
    responses: list[Path],
    runs: list[Path],
    data: list[Path],
    table: Path,
    resamples: int,
    in_domain: str,
) -> None:
    """Write the analysis `accuracy` of the runs' `samples` and the `base`'s, and of the scored `responses`."""
    milestones = gather.milestones(runs)
    given = pl.concat([answers(base, "base_sample"), answers(samples, "own_sample")])
    frame = accuracy.measure(
        gather.whole(given, milestones, "samples"),
        gather.whole(gather.frames(responses, "responses", DECISIONS), milestones, "responses"),
        gather.prompts(data),
        milestones,
        resamples,
        in_domain,
    )
    tables.write(frame, table, "accuracy")


if __name__ == "__main__":
    run(main)
