"""Step-0 invariants of one method, on a few real memes, before anything trains; stops at the first that is violated."""

import json
from pathlib import Path

import torch
from transformers import Trainer

from memedynamics import tables
from memedynamics.adapters import lora_config
from memedynamics.config import Adapter, BaseModelConfig, Sampling, TrainedMethod
from memedynamics.examples import dataset, end_token, training_rows
from memedynamics.forced_logps import reader
from memedynamics.invariants import TOLERANCE, measure, one_step, require
from memedynamics.job import run
from memedynamics.prompts import Prompt
from memedynamics.rewards import reward_functions
from memedynamics.training import trainer, trainer_config
from memedynamics.vlm import load_model, load_processor

# How many memes are read, and how many base samples of each.
MEMES, SAMPLES = 4, 2


def main(
    model: Path,
    preferences: Path,
    data: Path,
    samples: Path,
    report: Path,
    method: TrainedMethod,
    training: dict[str, object],
    adapter: Adapter,
    prompt: Prompt,
    question: str,
    base: BaseModelConfig,
    threads: int,
    work: Path,
    rewards: dict[str, float] | None = None,
    sampling: Sampling | None = None,
) -> None:
    """Check the trainer's arguments, then every invariant; write {invariant: {value, tolerance, ok}}."""
    torch.set_num_threads(threads)
    kind, args = method.kind, {**training, **method.args}
    fixed = {"dtype": base.dtype, "sampling": sampling, "weights": rewards}
    trainer_config(kind, args, work, **fixed)
    pairs, memes = tables.read(preferences, "preferences"), tables.read(data, "data")
    rows = training_rows(pairs, memes, prompt, question, "paired").head(MEMES)
    policy, processor = load_model(model, base.dtype, base.attn_implementation), load_processor(model)
    drawn = tables.read(samples, "samples", ["id", "sample", "token_ids", "logp"])
    few = reader(policy, processor, prompt, rows, drawn, SAMPLES)
    examples = dataset(kind, rows, processor, end_token(policy, processor))

    def made() -> Trainer:
        config = trainer_config(kind, one_step(kind, args, len(rows)), work, **fixed).set_save("no")
        lora = lora_config(policy, method.adapter or adapter)
        return trainer(config, policy, processor, examples, lora, reward_functions(rewards or {}, prompt))

    found = {}
    for name, invariant in measure(few, policy, made, work / "adapter", TOLERANCE[base.dtype]):
        require(name, invariant, kind, base.dtype)
        found[name] = {**invariant._asdict(), "ok": invariant.ok}
    report.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
