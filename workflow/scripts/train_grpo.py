"""Group relative policy optimisation (DeepSeekMath, 2402.03300) on the rewards of fresh completions."""

from pathlib import Path
from typing import Literal

import torch

from memedynamics import runs, tables
from memedynamics.config import Sampling
from memedynamics.examples import training_rows
from memedynamics.job import run
from memedynamics.methods import Matched, TrainedMethod
from memedynamics.rewards import reward_functions
from memedynamics.rollouts import recorded
from memedynamics.training import trainer, trainer_config
from memedynamics.vlm import load_model, load_processor


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
) -> None:
    """Train with TRL's GRPOTrainer and write the run's artefacts, every rollout included."""
    torch.set_num_threads(threads)
    outputs = {"milestones": milestones, "history": history, "rollouts": rollouts, "run": run}
    pairs, memes = tables.read(preferences, "preferences"), tables.read(data, "data")
    rows = training_rows(pairs, memes, matched.prompt, matched.question, method.prompts_of(train_prompts))
    args = {**matched.training, **method.args}
    config = trainer_config("grpo", args, work / "checkpoints", seed, matched.base.dtype, sampling, rewards)
    graders = recorded(reward_functions(rewards, matched.prompt), config, work / "rollouts")
    policy = load_model(model, matched.base.dtype, matched.base.attn_implementation)
    adapter, hooks = method.adapter or matched.adapter, runs.hooks(method.kind, config, fractions, work, run)
    made = trainer(config, policy, load_processor(model), rows, adapter, graders, hooks)
    runs.carry_out(made, rows, fractions, work, outputs)


if __name__ == "__main__":
    run(main)
