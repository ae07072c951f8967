"""DPO (Rafailov et al., 2305.18290) on the pairs, or KTO (Ethayarajh et al., 2402.01306) on their responses singly."""

from pathlib import Path

import torch

from memedynamics import runs, tables
from memedynamics.examples import training_rows
from memedynamics.job import run
from memedynamics.methods import Matched, TrainedMethod
from memedynamics.starting import starting_policy
from memedynamics.training import trainer, trainer_config
from memedynamics.vlm import load_processor


def main(
    model: Path,
    preferences: Path,
    data: Path,
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
    start: Path | None = None,
) -> None:
    """Train with TRL's trainer of the method's kind and write the run's artefacts; the reference is base or parent."""
    torch.set_num_threads(threads)
    outputs = {"milestones": milestones, "history": history, "rollouts": rollouts, "run": run}
    pairs, memes = tables.read(preferences, "preferences"), tables.read(data, "data")
    rows = training_rows(pairs, memes, matched.prompt, matched.question, "paired")
    args = {**matched.training, **method.args}
    config = trainer_config(method.kind, args, work / "checkpoints", seed, matched.base.dtype)
    adapter, hooks = method.adapter or matched.adapter, runs.hooks(method.kind, config, fractions, work, run)
    policy = starting_policy(model, matched.base, adapter, start, method.reference)
    made = trainer(config, policy, load_processor(model), rows, adapter, hooks=hooks, reference=method.reference)
    runs.carry_out(made, rows, fractions, work, outputs)


if __name__ == "__main__":
    run(main)
