"""A step's batch, shared by hand."""

import pytest

from memedynamics.errors import InputError
from memedynamics.shares import ACCUMULATION, BATCH, shared
from memedynamics.trainer_arguments import CONFIGS

SIZE, STEPS, ROUNDS = "per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation"


def test_one_process_takes_all():
    assert shared({SIZE: 3, "learning_rate": 1}, 1) == {SIZE: 3, "learning_rate": 1}


@pytest.mark.parametrize(
    ("args", "processes", "own"),
    [
        ({}, 2, {SIZE: 4, STEPS: 1}),
        ({SIZE: "3", STEPS: 2}, 2, {SIZE: 3, STEPS: 1}),  # accumulation first: a device holds what it would alone
        ({SIZE: 6, STEPS: 4}, 8, {SIZE: 3, STEPS: 1}),
        ({SIZE: 6, STEPS: 4}, 12, {SIZE: 2, STEPS: 1}),
        ({SIZE: 8, STEPS: 2, ROUNDS: 4}, 2, {SIZE: 8, STEPS: 1, ROUNDS: 2}),
        ({SIZE: 8, STEPS: 2, ROUNDS: 3}, 2, {SIZE: 4, STEPS: 2, ROUNDS: 3}),  # a round is cut as a step is
        ({SIZE: 8, STEPS: 2, "generation_batch_size": 24}, 2, {SIZE: 4, STEPS: 2, "generation_batch_size": 24}),
    ],
)
def test_the_product_stays(args, processes, own):
    """Rows of a step, and of a round of generation: batch × accumulation (or rounds) × processes."""
    found = shared(args, processes)
    assert found == own
    whole = int(args.get(SIZE, BATCH))
    assert found[SIZE] * found[STEPS] * processes == whole * int(args.get(STEPS, ACCUMULATION))
    assert found.get(ROUNDS, 0) * found[SIZE] * processes == args.get(ROUNDS, 0) * whole


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(InputError, match=r"launch.processes: 2 cannot share a step of 3 × 1 rows evenly .* change one"):
        shared({SIZE: 3}, 2)
    with pytest.raises(InputError, match="launch.processes: 2 cannot share"):
        shared({SIZE: 2}, 2, unit=2)  # KTO: half of one row
    with pytest.raises(InputError, match="trainer argument gradient_accumulation_steps: 'two' is no whole number"):
        shared({STEPS: "two"}, 2)


def test_the_defaults_are_the_trainers():
    for config in CONFIGS.values():
        assert (config.per_device_train_batch_size, config.gradient_accumulation_steps) == (BATCH, ACCUMULATION)
