"""What a study will cost before it runs: steps, memory, responses, disk.

Steps follow transformers' Trainer, memory the usual accounting of mixed-precision training with Adam; activations
depend on lengths and are left out. Everything here is arithmetic: no torch, no files.
"""

import math
from typing import NamedTuple

from memedynamics.config import Study
from memedynamics.milestones import steps as milestone_steps

GB = 1e9
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "nf4": 0.5}
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


def memory(parameters: int, trainable: int, dtype: str = "float32") -> float:
    """Bytes of weights, gradients and optimiser, without activations.

    Full fine-tuning in float32 with Adam is 16 bytes a parameter (7 B: 112 GB); with an adapter the frozen weights
    take their dtype's bytes (nf4: half a byte) and only the adapter is trained.
    """
    frozen = parameters * BYTES[dtype] if trainable < parameters else 0
    return frozen + trainable * TRAINED_BYTES


class Load(NamedTuple):
    """What one rule has to do in the whole study: jobs, and units of work (`unit` says which)."""

    rule: str
    jobs: int
    units: int
    unit: str
    gpu: bool


def loads(study: Study, rows: dict[tuple[str, str], int], schedules: dict[str, Schedule]) -> list[Load]:
    """The work of every costly rule, from the number of memes by (dataset, split) and each method's schedule."""
    samples, seeds = study.sampling.num_samples, len(study.seeds)
    between, final = own_responses(study, rows)
    trained = [name for name, method in study.methods.items() if method.kind != "external"]
    # A run trained elsewhere has no milestone but its end.
    runs = len(trained) * seeds + len(study.methods) - len(trained)
    own = runs * final + len(trained) * seeds * between
    scored = 1 + runs + len(trained) * seeds * (len(study.milestones) - 2)
    probes = probed(study, rows) * samples
    shards = study.scoring.shards
    return [
        Load("prepare_dataset", len({d for d, _ in rows}), sum(rows.values()), "memes", False),
        Load("sample_base", len(rows) * study.sampling.shards, sum(rows.values()) * samples, "responses", True),
        Load("preflight", len(trained), len(trained), "methods", True),
        *[
            Load(f"train {name}", seeds, seeds * schedules[name].total_steps * schedules[name].effective_batch, what, 1)
            for name in trained
            for what in [{"sft": "examples", "dpo": "pairs", "grpo": "completions"}[study.methods[name].kind]]
        ],
        Load("sample_policy", runs, own, "responses", True),
        Load("score", (runs + 1) * shards, scored * probes + own, "responses", True),
    ]


def own_responses(study: Study, rows: dict[tuple[str, str], int]) -> tuple[int, int]:
    """Responses that one run draws itself: at all milestones between (a few val prompts), at its end (final sets)."""
    samples = study.sampling.num_samples
    val = rows.get((study.in_domain, "val"), 0)
    final = {
        "val": val,
        "test": rows.get((study.in_domain, "test"), 0),
        "out_of_domain": sum(rows.get((name, "test"), 0) for name in study.out_of_domain),
    }
    between = (len(study.milestones) - 2) * min(study.own_samples.milestones, val)
    return samples * between, samples * sum(final[part] for part in study.own_samples.final)


def probed(study: Study, rows: dict[tuple[str, str], int]) -> int:
    """Prompts whose base samples every policy scores."""

    def of(name: str, split: str, limit: int | None) -> int:
        return min(rows.get((name, split), 0), limit if limit is not None else 1 << 60)

    inside = of(study.in_domain, "train", study.probes.train) + of(study.in_domain, "val", study.probes.val)
    return inside + sum(of(name, "test", study.probes.out_of_domain) for name in study.out_of_domain)
