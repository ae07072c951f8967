"""Milestones: fractions of training at which a run is saved and analysed."""


def label(fraction: float) -> str:
    """The folder name of a milestone: `0.0625`, `1`."""
    return f"{fraction:g}"


def steps(fractions: list[float], total: int) -> dict[str, int]:
    """The optimiser step of every milestone by label: max(1, round(fraction · total)), and 0 at fraction 0."""
    return {label(fraction): max(1, round(fraction * total)) if fraction else 0 for fraction in fractions}
