"""Group relative policy optimisation (DeepSeekMath, 2402.03300) on the rewards of fresh completions."""

from pathlib import Path
from typing import Literal

import torch

from memedynamics import runs, tables
from memedynamics.adapters import lora_config
from memedynamics.config import Adapter, BaseModelConfig, Sampling, TrainedMethod
from memedynamics.examples import dataset, end_token, training_rows
from memedynamics.job import run
from memedynamics.prompts import Prompt
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
    training: dict[str, object],
    adapter: Adapter,
    base: BaseModelConfig,
    prompt: Prompt,
    question: str,
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
    rows = training_rows(pairs, memes, prompt, question, method.train_prompts or train_prompts)
    args = {**training, **method.args}
    config = trainer_config("grpo", args, work / "checkpoints", seed, base.dtype, sampling, rewards)
    policy, processor = load_model(model, base.dtype, base.attn_implementation), load_processor(model)
    examples = dataset("grpo", rows, processor, end_token(policy, processor))
    graders = recorded(reward_functions(rewards, prompt), config, work / "rollouts")
    hooks = runs.hooks(config, fractions, work, run)
    lora = lora_config(policy, method.adapter or adapter)
    made = trainer(config, policy, processor, examples, lora, graders, hooks)
    runs.train(made)
    runs.write(made, rows, fractions, work, outputs)


if __name__ == "__main__":
    run(main)
