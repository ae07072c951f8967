"""Milestones: labels and steps."""

from memedynamics import milestones


def test_labels_are_decimals() -> None:
    assert [milestones.label(f) for f in (0, 0.0625, 0.125, 0.5, 1, 1.0)] == ["0", "0.0625", "0.125", "0.5", "1", "1"]


def test_steps_of_189() -> None:
    # 0.0625 · 189 = 11.8 → 12, 0.125 · 189 = 23.6 → 24, 0.25 · 189 = 47.25 → 47, 0.5 · 189 = 94.5 → 94 (to even).
    fractions = [0, 0.0625, 0.125, 0.25, 0.5, 1]
    assert list(milestones.steps(fractions, 189).values()) == [0, 12, 24, 47, 94, 189]


def test_a_positive_fraction_is_at_least_one_step() -> None:
    assert milestones.steps([0, 0.0625, 0.125, 1], 3) == {"0": 0, "0.0625": 1, "0.125": 1, "1": 3}
