"""One process's share of a training's batch: several processes never change what a step sees.

A study's per_device_train_batch_size × gradient_accumulation_steps is the whole batch of an optimiser step, and with
steps_per_generation that of a round of generation, however many processes share it. Accumulation is divided before the
batch of a device, so that a device holds what it would hold alone.
"""

from collections.abc import Mapping

from memedynamics.errors import InputError

# What transformers takes where the study says nothing.
BATCH, ACCUMULATION = 8, 1
# Rows that a device's batch is a multiple of, by kind: half of KTO's are chosen responses.
UNITS = {"kto": 2}


def shared(args: Mapping[str, object], processes: int, unit: int = 1) -> dict[str, object]:
    """Trainer arguments `args` of a whole step, as each of `processes` takes them.

    A device's batch is a multiple of `unit` rows. Raises InputError where the step cannot be shared evenly.
    """
    if processes == 1:
        return dict(args)
    batch = _number(args, "per_device_train_batch_size") or BATCH
    accumulation = _number(args, "gradient_accumulation_steps") or ACCUMULATION
    rounds, drawn = _number(args, "steps_per_generation"), _number(args, "generation_batch_size")
    for steps in range(processes, 0, -1):
        rows = processes // steps
        whole = processes % steps == accumulation % steps == rounds % steps == 0
        if whole and batch % (rows * unit) == 0 and drawn % (batch * steps) == 0:
            own = {"per_device_train_batch_size": batch // rows, "gradient_accumulation_steps": accumulation // steps}
            return {**args, **own, **({"steps_per_generation": rounds // steps} if rounds else {})}
    raise InputError(
        f"launch.processes: {processes} cannot share a step of {batch} × {accumulation} rows evenly "
        "(per_device_train_batch_size × gradient_accumulation_steps); change one of the three"
    )


def _number(args: Mapping[str, object], name: str) -> int:
    try:
        return int(args.get(name) or 0)
    except (TypeError, ValueError):
        raise InputError(f"trainer argument {name}: {args[name]!r} is no whole number") from None
