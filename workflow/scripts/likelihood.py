"""Likelihood of chosen, rejected and further texts under every run at every milestone, against the base."""

from pathlib import Path
from typing import Literal

import polars as pl

from memedynamics import gather, likelihood, likelihood_changes, tables
from memedynamics.job import progress, run


def main(
    responses: list[Path],
    probes: Path,
    runs: list[Path],
    data: list[Path],
    table: Path,
    resamples: int,
    beta: dict[str, float],
    dpo: list[str],
    pair_rule: Literal["paired", "seed"],
) -> None:
    """Write the analysis `likelihood` of the folders (or files) `responses` of the runs and the base.

    `beta` by method; `dpo`: the methods that minimised DPO's loss.
    """
    wanted = likelihood_changes.texts(gather.finite(tables.read(probes, "probes"), probes), pair_rule)
    measured = [
        likelihood_changes.per_text(gather.frames(found, "responses", likelihood_changes.RESPONSES), wanted)
        for found in progress(gather.by_run(responses).values(), "responses")
    ]
    milestones = gather.milestones(runs)
    found = gather.whole(pl.concat(measured), milestones, "responses")
    scale = likelihood_changes.scales(milestones, beta, dpo)
    frame = likelihood.measure(found, scale, gather.prompts(data), milestones, resamples)
    tables.write(frame, table, "likelihood")


if __name__ == "__main__":
    run(main)
