"""Supervised fine-tuning on the chosen responses."""

from pathlib import Path

import torch

from memedynamics import runs, tables
from memedynamics.adapters import lora_config
from memedynamics.config import Adapter, BaseModelConfig, TrainedMethod
from memedynamics.examples import dataset, end_token, training_rows
from memedynamics.job import run
from memedynamics.prompts import Prompt
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
    seed: int,
    threads: int,
    work: Path,
) -> None:
    """Train with TRL's SFTTrainer and write the run's artefacts."""
    torch.set_num_threads(threads)
    outputs = {"milestones": milestones, "history": history, "rollouts": rollouts, "run": run}
    pairs, memes = tables.read(preferences, "preferences"), tables.read(data, "data")
    rows = training_rows(pairs, memes, prompt, question, "paired")
    config = trainer_config("sft", {**training, **method.args}, work / "checkpoints", seed, base.dtype)
    policy, processor = load_model(model, base.dtype, base.attn_implementation), load_processor(model)
    examples = dataset("sft", rows, processor, end_token(policy, processor))
    hooks = runs.hooks(config, fractions, work, run)
    made = trainer(config, policy, processor, examples, lora_config(policy, method.adapter or adapter), hooks=hooks)
    runs.train(made)
    runs.write(made, rows, fractions, work, outputs)


if __name__ == "__main__":
    run(main)
