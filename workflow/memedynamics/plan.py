"""What a training will cost before it runs: steps and memory.

Steps follow transformers' Trainer, memory the usual accounting of mixed-precision training with Adam; activations
depend on lengths and are left out. Everything here is arithmetic: no torch, no files.
"""

import math
from typing import NamedTuple

from memedynamics.milestones import steps as milestone_steps

GB = 1e9
# NF4 with double quantisation: 4 bits, and 0.127 of scales (QLoRA, 2305.14314, §3).
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "nf4": 4.127 / 8}
# Weight, gradient and Adam's two moments, each float32.
TRAINED_BYTES = 16


class Schedule(NamedTuple):
    """How long one training is: in optimiser steps, and the step each milestone is saved at."""

    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    effective_batch: int
    saves: dict[str, int]


def schedule(
    examples: int,
    batch: int,
    accumulation: int = 1,
    epochs: float = 1.0,
    max_steps: int = -1,
    warmup: float = 0.0,
    processes: int = 1,
    group: int = 1,
    rounds: int | None = None,
    iterations: int = 1,
    fractions: tuple[float, ...] = (1.0,),
) -> Schedule:
    """Steps of a training on `examples` prompts or pairs with `batch` rows a device and step of accumulation.

    `group` is GRPO's completions a prompt: rows are then completions, drawn for `rounds` batches at once (empty: for
    one optimiser step) and used `iterations` times. `warmup` below 1 is a share of the total.
    1,000 examples, batch 4 × 4, 3 epochs: 63 steps an epoch, 189 in all.
    """
    # Without groups the last short batch counts; GRPO's sampler drops prompts that do not fill a generation batch.
    rounds = rounds or accumulation
    if group > 1:
        batches = examples // (batch * processes * rounds // group) * rounds * iterations
    else:
        batches = math.ceil(examples / (batch * processes))
    per_epoch = max(math.ceil(batches / accumulation), 1)
    total = max_steps if max_steps > 0 else math.ceil(per_epoch * epochs)
    warm = math.ceil(warmup * total) if warmup < 1 else int(warmup)
    return Schedule(per_epoch, total, warm, batch * accumulation * processes, milestone_steps(fractions, total))


def memory(
    parameters: int,
    trainable: int,
    dtype: str = "float32",
    quantised: int = 0,
    full: bool = False,
    reference: bool = False,
) -> float:
    """Bytes of weights, gradients and optimiser, without activations.

    Full fine-tuning in float32 with Adam is 16 bytes a parameter (7 B: 112 GB), what stays frozen and a `reference` 4
    each. With an adapter the base's weights take their dtype's bytes, `quantised` ones half a byte (nf4), and only the
    adapter is trained; the base is its own reference.
    """
    if full:
        frozen = (parameters - trainable) + reference * parameters
        return frozen * BYTES["float32"] + trainable * TRAINED_BYTES
    return (parameters - quantised) * BYTES[dtype] + quantised * BYTES["nf4"] + trainable * TRAINED_BYTES
