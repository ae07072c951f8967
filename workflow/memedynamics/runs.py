"""A training run from start or last checkpoint to its artefacts: milestones, history, rollouts, run.json."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import torch
from peft import PeftModel
from torch import nn
from transformers import Trainer, TrainerCallback
from trl import DPOConfig, GRPOConfig

from memedynamics import callbacks, milestones, rollouts, tables
from memedynamics.trainer_arguments import Config, Kind
from memedynamics.training import boundary
from memedynamics.vlm import bare, remembered_pictures


def hooks(kind: Kind, config: Config, fractions: list[float], work: Path, run: Path) -> list[TrainerCallback]:
    """The callbacks of a run: milestones under `work`, a checked history, exact checkpoints, a progress bar.

    TensorBoard's own callback, where `report_to` asks for it, writes beside run.json (`run`), not into `work`.
    """
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(run.parent / "tensorboard"))
    found = [
        callbacks.Milestones(fractions, work / "milestones"),
        callbacks.History(counts_on=isinstance(config, GRPOConfig)),
        callbacks.Progress(kind.upper()),
        callbacks.Checkpoints(boundary(config)),
    ]
    return [*found, callbacks.Epochs()] if isinstance(config, GRPOConfig) else found


def carry_out(
    trainer: Trainer, rows: pl.DataFrame, fractions: list[float], work: Path, output: dict[str, Path]
) -> None:
    """`train`, then `write` what came of it."""
    train(trainer)
    write(trainer, rows, fractions, work, output)


def train(trainer: Trainer) -> None:
    """Train to the end, from the newest whole checkpoint where there is one.

    Raises InputError when a loss is not finite, and when SIGTERM stopped the run (it resumes when run again).
    """
    checkpoint = callbacks.newest_checkpoint(Path(trainer.args.output_dir))
    with frozen_pictures(trainer.model):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


@contextmanager
def frozen_pictures(model: PeftModel) -> Iterator[None]:
    """Inside, the frozen tower runs once for a batch, policy and reference together, and keeps no activations.

    Gradient checkpointing otherwise makes its features ask for gradients: a backward pass through the whole tower
    that ends nowhere.
    """
    with remembered_pictures(model):
        inner = bare(model).model
        inner.get_image_features = torch.no_grad()(inner.get_image_features)
        yield


def write(trainer: Trainer, rows: pl.DataFrame, fractions: list[float], work: Path, output: dict[str, Path]) -> None:
    """Write the artefacts of a finished run to `output` (milestones, history, rollouts, run).

    Only the main process writes; the others wait for it.
    """
    if trainer.is_world_process_zero():
        steps = milestones.steps(fractions, trainer.state.max_steps)
        tables.write(history(trainer.state.log_history), output["history"], "history")
        rollouts.merge(work / "rollouts", output["rollouts"])
        collect(steps, work / "milestones", output["milestones"])
        output["run"].write_text(json.dumps(summary(trainer, rows, steps), indent=2) + "\n")
    trainer.accelerator.wait_for_everyone()


def collect(steps: dict[str, int], saved: Path, output: Path) -> None:
    """Copy the saves that lie in `saved` by step to `output`, one folder a milestone, whole or not at all."""
    partial = output.with_name(f".{output.name}.partial")
    for folder in (partial, output):
        shutil.rmtree(folder, ignore_errors=True)
    for label, step in steps.items():
        shutil.copytree(saved / str(step), partial / label)
    partial.rename(output)


def history(log: list[dict[str, float]]) -> pl.DataFrame:
    """TRL's log as (step, metric, value), one row per step and metric, under TRL's names."""
    rows = [
        (entry["step"], metric, float(value))
        for entry in log
        for metric, value in entry.items()
        if metric != "step" and isinstance(value, int | float)
    ]
    table = pl.DataFrame(rows, schema={"step": pl.Int64, "metric": pl.String, "value": pl.Float64}, orient="row")
    # The summary at the end repeats the epoch; and a resumed log has lost the order of its metrics.
    return table.unique(["step", "metric"], keep="last").sort("step", "metric")


def summary(trainer: Trainer, rows: pl.DataFrame, steps: dict[str, int]) -> dict[str, object]:
    """What run.json says of a trained run; `mean_num_correct` is empty where prompts without a pair were used.

    `rows` are what was trained on: a prompt each, or for RFT a correct sample each, over which the means are taken.
    """
    tokens = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
    paired = rows["num_correct"].null_count() == 0
    return {
        "kind": "adapter",
        "reference": "base",
        "total_steps": trainer.state.max_steps,
        "steps": steps,
        "num_prompts": rows["id"].n_unique(),
        "epochs": trainer.state.epoch,
        "tokens": int(tokens[-1]),
        "flops": flops(trainer, int(tokens[-1])),
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "label_balance": rows["label"].mean(),
        "mean_num_correct": rows["num_correct"].mean() if paired else None,
    }


def flops(trainer: Trainer, tokens: int) -> float:
    """Estimated floating-point operations of a run that saw `tokens` tokens, from the N parameters of its text decoder.

    N is without embeddings and head. The vision tower and its projector are left out: they run once a picture, not
    once a token, and without gradients.
    A forward pass takes 2N a token (Kaplan et al., 2001.08361), the backward pass through frozen weights another 2N.
    DPO adds the reference's forward pass; GRPO adds sampling, one training pass per iteration, and the reference's;
    EM adds sampling, and for what it must know of its batch beforehand another pass (the trainer's `extra_forwards`).
    Gradient checkpointing and the adapter's own weights are left out.
    """
    forward = 2.0 * decoder_parameters(trainer.model) * tokens
    config = trainer.args
    if isinstance(config, GRPOConfig):
        extra = getattr(trainer, "extra_forwards", 0)
        return forward * (1 + 2 * config.num_iterations + (config.beta != 0) + extra)
    return forward * (3 if isinstance(config, DPOConfig) else 2)


def decoder_parameters(policy: PeftModel) -> int:
    """Parameters of the text decoder without its embeddings, the head and the adapter, which alone trains."""
    decoder = policy.get_base_model().get_decoder()
    embedded = {id(p) for module in decoder.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    return sum(p.numel() for p in decoder.parameters() if not p.requires_grad and id(p) not in embedded)
