"""Spectra of the weight updates of every run: shape, size, intruders, sparsity, overlaps; also at equal norm."""

from pathlib import Path

from memedynamics import gather, schemas, spectrum, tables
from memedynamics.job import run

COLUMNS = [name for name in schemas.SCHEMAS["extract_spectrum"].names if name != "study"]


def main(
    extracts: list[Path], bases: list[Path], runs: list[Path], table: Path, resamples: int, compared: list[str]
) -> None:
    """Write the analysis `spectrum` of the runs' `extracts` and `bases`, both written by extract_spectrum.

    `compared`: the methods that the study compares; the smallest of their final norms is the one all are read at.
    """
    milestones = gather.milestones(runs)
    frame = spectrum.measure(
        gather.whole(gather.frames(extracts, "extract_spectrum", COLUMNS), milestones, "extracts"),
        {gather.run_of(path.with_suffix("")): path for path in bases},
        milestones,
        resamples,
        compared,
    )
    tables.write(frame, table, "spectrum")


if __name__ == "__main__":
    run(main)
