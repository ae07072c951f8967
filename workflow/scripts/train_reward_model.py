"""The reward model of RLHF (InstructGPT, 2203.02155): Bradley and Terry's loss on the preference pairs."""

from pathlib import Path

import torch

from memedynamics import checksums, reward_grader, runs, tables
from memedynamics import reward_model_training as training
from memedynamics.examples import training_rows
from memedynamics.job import is_first_process, run
from memedynamics.methods import Matched, RewardModel
from memedynamics.reward_model import ScalarModel, save
from memedynamics.reward_model_held_out import held_out
from memedynamics.training import trainer_config
from memedynamics.vlm import load_model, load_processor

# Of the pairs: what the report's accuracy is measured on.
HELD_OUT = 0.1


def main(
    model: Path,
    preferences: Path,
    data: Path,
    trained: Path,
    history: Path,
    report: Path,
    reward_model: RewardModel,
    matched: Matched,
    threads: int,
    work: Path,
) -> None:
    """Train on all but the held-out pairs, and write the model, its history and its report."""
    torch.set_num_threads(threads)
    settings, seed, base = reward_model, reward_model.seed, matched.base
    pairs, memes = tables.read(preferences, "preferences"), tables.read(data, "data")
    rows = training_rows(pairs, memes, matched.prompt, matched.question, "paired")
    rows, held = held_out(rows, HELD_OUT, seed)
    args = {**matched.training, **settings.args}
    config = trainer_config("reward_model", args, work / "checkpoints", seed, base.dtype)
    policy, processor = load_model(model, base.dtype, base.attn_implementation), load_processor(model)
    scalar = ScalarModel(training.adapted(policy, settings.adapter or matched.adapter, seed))
    made = training.trainer(scalar, processor, rows, config, work)
    training.train(made)
    found = training.margins(scalar, processor, held, config.per_device_train_batch_size)
    about = {"base": reward_grader.digest(model), **training.report(made, held, found, len(rows))}
    if is_first_process():
        tables.write(runs.history(made.state.log_history), history, "history")
        save(scalar, trained, about)
        checksums.write_json(report, about)


if __name__ == "__main__":
    run(main)
