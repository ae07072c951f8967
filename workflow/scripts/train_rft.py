"""Rejection-sampling fine-tuning (Yuan et al., 2308.01825): SFT on all correct, well-formed samples."""

from pathlib import Path
from typing import Literal

import torch

from memedynamics import runs, tables
from memedynamics.examples import correct_samples, training_rows
from memedynamics.job import run
from memedynamics.methods import Matched, TrainedMethod
from memedynamics.starting import starting_policy
from memedynamics.training import trainer, trainer_config
from memedynamics.vlm import load_processor


def main(
    model: Path,
    preferences: Path,
    data: Path,
    samples: Path,
    milestones: Path,
    history: Path,
    rollouts: Path,
    run: Path,
    method: TrainedMethod,
    matched: Matched,
    fractions: list[float],
    seed: int,
    threads: int,
    work: Path,
    train_prompts: Literal["paired", "all"] = "paired",
    start: Path | None = None,
) -> None:
    """Train with TRL's SFTTrainer and write the run's artefacts."""
    torch.set_num_threads(threads)
    outputs = {"milestones": milestones, "history": history, "rollouts": rollouts, "run": run}
    pairs, memes = tables.read(preferences, "preferences"), tables.read(data, "data")
    rows = training_rows(pairs, memes, matched.prompt, matched.question, method.prompts_of(train_prompts))
    rows = correct_samples(rows, tables.read(samples, "samples", ["id", "sample", "text", "correct", "format_ok"]))
    args = {**matched.training, **method.args}
    config = trainer_config("rft", args, work / "checkpoints", seed, matched.base.dtype)
    adapter, hooks = method.adapter or matched.adapter, runs.hooks(method.kind, config, fractions, work, run)
    policy = starting_policy(model, matched.base, adapter, start)
    made = trainer(config, policy, load_processor(model), rows, adapter, hooks=hooks)
    runs.carry_out(made, rows, fractions, work, outputs)


if __name__ == "__main__":
    run(main)
