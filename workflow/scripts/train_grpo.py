"""GRPO (DeepSeekMath, 2402.03300), its variants, and RLOO (Ahmadian et al., 2402.14740), on fresh responses."""

from pathlib import Path
from typing import Literal

import torch

from memedynamics import graders, runs, tables
from memedynamics.config import Sampling
from memedynamics.examples import training_rows
from memedynamics.job import run
from memedynamics.methods import Matched, TrainedMethod
from memedynamics.rollouts import recorded
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
    rewards: dict[str, float],
    sampling: Sampling,
    train_prompts: Literal["paired", "all"],
    seed: int,
    threads: int,
    work: Path,
    start: Path | None = None,
    reward_model: Path | None = None,
) -> None:
    """Train with TRL's trainer of the method's kind and write the run's artefacts, every rollout included."""
    torch.set_num_threads(threads)
    outputs = {"milestones": milestones, "history": history, "rollouts": rollouts, "run": run}
    pairs, memes = tables.read(preferences, "preferences"), tables.read(data, "data")
    rows = training_rows(pairs, memes, matched.prompt, matched.question, method.prompts_of(train_prompts))
    args = {**matched.training, **method.args}
    weights = graders.weights(method, rewards)
    config = trainer_config(method.kind, args, work / "checkpoints", seed, matched.base.dtype, sampling, weights)
    adapter, hooks = method.adapter or matched.adapter, runs.hooks(method.kind, config, fractions, work, run)
    policy, processor = starting_policy(model, matched.base, adapter, start, method.reference), load_processor(model)
    functions = graders.functions(method, rewards, matched, policy, processor, model, reward_model)
    functions = recorded(functions, config, work / "rollouts")
    made = trainer(config, policy, processor, rows, adapter, functions, hooks, reference=method.reference)
    made.extra_forwards = int(method.reward == "model")
    runs.carry_out(made, rows, fractions, work, outputs)


if __name__ == "__main__":
    run(main)
