"""Overfitting seen in the features: Sharpe ratios of contributions, and signal-to-noise ratios of gradients."""

from pathlib import Path

import polars as pl

from memedynamics import gather, sharpe, signal_noise, tables
from memedynamics.job import run

COLUMNS = ["fraction", *gather.MEME, "group", "phi", "occlusion", "gradient"]


def main(
    extracts: list[Path],
    signals: list[Path],
    runs: list[Path],
    data: list[Path],
    table: Path,
    resamples: int,
    in_domain: str,
) -> None:
    """Write the analysis `sharpe` of the runs and the base; `signals` lie beside `extracts`, one of each a run."""
    milestones = gather.milestones(runs)
    found = gather.whole(gather.frames(extracts, "extract_sharpe", COLUMNS), milestones, "extracts")
    # A run without factors has an empty table.
    strengths = [
        gather.labelled(gather.finite(tables.read(path, "extract_signal"), path), *gather.run_of(path))
        for path in sorted(signals)
    ]
    prompts = gather.prompts(data)
    rows = sharpe.rows(found, prompts, resamples, in_domain)
    rows += signal_noise.rows(pl.concat(strengths), found, prompts, resamples)
    frame = pl.DataFrame(rows, infer_schema_length=None)
    tables.write(gather.finish(frame, milestones), table, "sharpe")


if __name__ == "__main__":
    run(main)
