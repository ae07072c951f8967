"""How far the judge agrees with the labels, its position bias, consistency and calibration."""

from pathlib import Path

from memedynamics import gather, judgement, judgement_pairs, tables
from memedynamics.job import run


def main(judgements: Path, samples: Path, data: list[Path], table: Path, resamples: int) -> None:
    """Write the analysis `judgement`; `samples` are the base's on train, `data` holds that split at least."""
    judged = tables.finite(tables.read(judgements, "judgements"), judgements)
    graded = tables.read(samples, "samples", judgement_pairs.SAMPLES)
    tables.write(judgement.measure(judged, graded, gather.prompts(data), resamples), table, "judgement")


if __name__ == "__main__":
    run(main)
