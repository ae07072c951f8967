"""Entropy minimisation on fresh responses (One-shot EM, 2505.20282; RENT, 2505.22660): no reward is trained on."""

from functools import partial
from pathlib import Path
from typing import Literal

import torch

from memedynamics import runs, tables
from memedynamics.config import Sampling
from memedynamics.entropy_minimisation import EntropyTrainer
from memedynamics.examples import few, training_rows
from memedynamics.job import run
from memedynamics.methods import EntropyMinimisation, Matched
from memedynamics.rewards import reward_functions
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
    method: EntropyMinimisation,
    matched: Matched,
    fractions: list[float],
    rewards: dict[str, float],
    sampling: Sampling,
    train_prompts: Literal["paired", "all"],
    seed: int,
    threads: int,
    work: Path,
    start: Path | None = None,
) -> None:
    """Train with GRPO's loop and write the run's artefacts; rewards are only recorded."""
    torch.set_num_threads(threads)
    outputs = {"milestones": milestones, "history": history, "rollouts": rollouts, "run": run}
    pairs, memes = tables.read(preferences, "preferences"), tables.read(data, "data")
    rows = training_rows(pairs, memes, matched.prompt, matched.question, method.prompts_of(train_prompts))
    rows = few(rows, method.prompts, seed)
    args = {**matched.training, **method.args}
    config = trainer_config("em", args, work / "checkpoints", seed, matched.base.dtype, sampling, rewards)
    graders = recorded(reward_functions(rewards, matched.prompt), config, work / "rollouts")
    gated = {"objective": method.objective, "label_gated": method.label_gated}
    minimiser = partial(EntropyTrainer, **gated, prompt=matched.prompt)
    adapter, hooks = method.adapter or matched.adapter, runs.hooks(method.kind, config, fractions, work, run)
    policy = starting_policy(model, matched.base, adapter, start)
    made = trainer(config, policy, load_processor(model), rows, adapter, graders, hooks, minimiser)
    runs.carry_out(made, rows, fractions, work, outputs)


if __name__ == "__main__":
    run(main)
