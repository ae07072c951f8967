"""A training run from start or last checkpoint to its artefacts: milestones, history, rollouts, run.json."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import polars as pl
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerCallback
from trl import DPOConfig, KTOConfig, RLOOConfig

from memedynamics import callbacks, checksums, milestones, processes, resuming, rollouts, tables
from memedynamics.saving import Policy
from memedynamics.trainer_arguments import DRAWING, Config, Kind
from memedynamics.training import boundary
from memedynamics.vlm import bare, load_model, remembered_pictures


def hooks(kind: Kind, config: Config, fractions: list[float], work: Path, run: Path) -> list[TrainerCallback]:
    """The callbacks of a run: milestones and live metrics under `work`, a checked history, exact checkpoints, a bar.

    TensorBoard's own callback, where `report_to` asks for it, writes beside run.json (`run`), not into `work`.
    """
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(run.parent / "tensorboard"))
    found = [
        callbacks.Milestones(fractions, work / "milestones"),
        callbacks.Live(work),  # before the history is checked: a number that is not finite is seen too
        callbacks.History(counts_on=isinstance(config, DRAWING)),
        callbacks.Progress(kind.upper()),
        resuming.Checkpoints(boundary(config)),
    ]
    found += [callbacks.WholeHead()] if processes.sharding() else []
    return [*found, resuming.Epochs()] if isinstance(config, DRAWING) else found


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
    checkpoint = resuming.newest_checkpoint(Path(trainer.args.output_dir))
    if checkpoint and not isinstance(trainer.model, PeftModel):
        restore(trainer.model, checkpoint)
    with frozen_pictures(trainer.model, getattr(trainer, "ref_model", None)):
        resuming.go_on(trainer)


def restore(model: PreTrainedModel, checkpoint: Path) -> None:
    """Put the full weights of `checkpoint` into `model`.

    transformers' Trainer compares the names in the file with the model's own, which differ for vision-language models,
    and passes over weights that it finds no place for.
    """
    model.load_state_dict(load_model(checkpoint, "float32").state_dict())


@contextmanager
def frozen_pictures(model: Policy, reference: PreTrainedModel | None = None) -> Iterator[None]:
    """Inside, the frozen tower runs once a batch, for a `reference` with the same tower too, and keeps no activations.

    Where the run begins at a checkpoint trained elsewhere, the base's tower may be another one.
    Gradient checkpointing otherwise makes its features ask for gradients: a backward pass through the whole tower
    that ends nowhere. Of a tower in shards nothing is remembered: all processes run it, or all wait for one another.
    """
    with nullcontext() if processes.sharding() else remembered_pictures(model):
        inner = bare(model).model
        inner.get_image_features = torch.no_grad()(inner.get_image_features)
        if reference is not None and not processes.sharding() and _same_pictures(model, reference):
            bare(reference).model.get_image_features = inner.get_image_features
        yield


def _same_pictures(model: Policy, reference: PreTrainedModel) -> bool:
    """Whether tower and projector of both have the same weights."""
    ours, theirs = (_outside_decoder(bare(one)) for one in (model, reference))
    return ours.keys() == theirs.keys() and all(
        torch.equal(weight, theirs[name].to(weight.device, weight.dtype)) for name, weight in ours.items()
    )


def _outside_decoder(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    decoder = {id(parameter) for parameter in model.get_decoder().parameters()}
    return {name: parameter for name, parameter in model.model.named_parameters() if id(parameter) not in decoder}


def write(trainer: Trainer, rows: pl.DataFrame, fractions: list[float], work: Path, output: dict[str, Path]) -> None:
    """Write the artefacts of a finished run to `output` (milestones, history, rollouts, run).

    Only the main process writes; the others wait for it.
    """
    if trainer.is_world_process_zero():
        steps = milestones.steps(fractions, trainer.state.max_steps)
        tables.write(history(trainer.state.log_history), output["history"], "history")
        rollouts.merge(work / "rollouts", output["rollouts"])
        collect(steps, work / "milestones", output["milestones"])
        checksums.write_json(output["run"], summary(trainer, rows, steps))
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
    """TRL's log as (step, metric, value), one row per step and metric, under TRL's names.

    Without the summary's `train_loss`, a mean over the steps since the run was last resumed: `loss` has every step.
    """
    rows = [
        (entry["step"], metric, float(value))
        for entry in log
        for metric, value in entry.items()
        if metric not in ("step", "train_loss") and isinstance(value, int | float)
    ]
    table = pl.DataFrame(rows, schema={"step": pl.Int64, "metric": pl.String, "value": pl.Float64}, orient="row")
    # The summary at the end repeats the epoch; and a resumed log has lost the order of its metrics.
    return table.unique(["step", "metric"], keep="last").sort("step", "metric")


def summary(trainer: Trainer, rows: pl.DataFrame, steps: dict[str, int]) -> dict[str, object]:
    """What run.json says of a trained run; `mean_num_correct` is empty where prompts without a pair were used.

    `starts_at`: whose policy fraction 0 is: base, the run's own, or the name of the method it goes on from.
    `loss_reference`: what its loss compares with (`training.loss_reference`); `reference`: what all analyses do.
    `rows` are what was trained on: a prompt each, or for RFT a correct sample each, over which the means are taken.
    """
    tokens = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
    paired = rows["num_correct"].null_count() == 0
    return {
        "kind": "adapter" if isinstance(trainer.model, PeftModel) else "full",
        "reference": "base",
        "starts_at": getattr(trainer.model, "starts_at", "base"),
        "loss_reference": trainer.loss_reference,
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
    A forward pass takes 2N a token (Kaplan et al., 2001.08361), the backward pass through frozen weights another 2N,
    and that of full fine-tuning 4N.
    DPO adds the reference's forward pass; KTO that too, and with its KL another forward pass of either; GRPO adds
    sampling, one training pass per iteration, and the reference's; RLOO the same and log π_old; EM adds sampling, and
    for what it must know of its batch beforehand another pass. A reward model reads everything once more (both as the
    trainer's `extra_forwards`).
    Gradient checkpointing and the adapter's own weights are left out.
    """
    forward = 2.0 * decoder_parameters(trainer.model) * tokens
    config, step = trainer.args, 2 if isinstance(trainer.model, PeftModel) else 3
    if isinstance(config, DRAWING):
        extra = getattr(trainer, "extra_forwards", 0) + isinstance(config, RLOOConfig)
        return forward * (1 + step * config.num_iterations + (config.beta != 0) + extra)
    if isinstance(config, KTOConfig):
        return forward * (step + (3 if config.loss_type == "kto" else 1))
    return forward * (step + isinstance(config, DPOConfig))


def decoder_parameters(policy: Policy) -> int:
    """Parameters of the text decoder without its embeddings, the head and adapters; quantised ones count as weights."""
    decoder, apart = bare(policy).get_decoder(), []
    for module in decoder.modules():
        if isinstance(module, BaseTunerLayer):
            apart += [getattr(module, name) for name in module.adapter_layer_names]
        elif isinstance(module, nn.Embedding):
            apart.append(module)
    left_out = {id(p) for part in apart for p in part.parameters()}
    return sum(_size(p) for p in decoder.parameters() if id(p) not in left_out)


def _size(parameter: nn.Parameter) -> int:
    packed = getattr(parameter, "quant_state", None)
    return packed.shape.numel() if packed is not None else parameter.numel()
