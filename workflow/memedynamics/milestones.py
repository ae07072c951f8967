"""Milestones: fractions of training at which a run is saved and analysed."""

from collections.abc import Mapping, Sequence


def label(fraction: float) -> str:
    """The folder name of a milestone: `0.0625`, `1`."""
    return f"{fraction:g}"


def steps(fractions: list[float], total: int) -> dict[str, int]:
    """The optimiser step of every milestone by label: max(1, round(fraction · total)), and 0 at fraction 0."""
    return {label(fraction): max(1, round(fraction * total)) if fraction else 0 for fraction in fractions}


def scored(fractions: Sequence[float], record: Mapping[str, object]) -> list[float]:
    """Those of the study's `fractions` at which the run of `record` (run.json) has a milestone to score.

    The start of a run that `starts_at` the base is left out: it is the reference, scored for once a study.
    """
    start = [0.0] if record["kind"] != "base" and record.get("starts_at", "base") == "base" else []
    return [fraction for fraction in fractions if label(fraction) in record["steps"] and fraction not in start]
