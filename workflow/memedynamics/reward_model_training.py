"""How the reward model trains, with transformers' Trainer, and what is measured on the pairs held out of it.

1. It resumes as every training does (module `resuming`); a checkpoint holds what trains, not the base model.
2. The first step's loss is ln 2, since the head starts at 0; another one means that something else is trained.
"""

import math
from pathlib import Path

import numpy as np
import polars as pl
import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel, PrinterCallback, ProcessorMixin, Trainer, TrainingArguments
from transformers import set_seed as set_all_seeds

from memedynamics import adapters, batching, callbacks, resuming, reward_model
from memedynamics.config import Adapter
from memedynamics.errors import InputError
from memedynamics.job import progress
from memedynamics.methods import GRADING
from memedynamics.reward_model import ScalarModel
from memedynamics.reward_model_held_out import accuracy
from memedynamics.runs import frozen_pictures

TOLERANCE = 1e-6


class RewardTrainer(Trainer):
    """Trainer that logs, under TRL's names, how often and by how much the chosen response is ahead."""

    margins: list[torch.Tensor] = []
    num_tokens = 0

    def compute_loss(
        self, model: ScalarModel, inputs: dict, return_outputs: bool = False, num_items_in_batch: object = None
    ) -> torch.Tensor:
        """The loss of a batch, and on the side its margins and tokens."""
        found = model(**inputs)
        if self.state.global_step == 0:
            _check_first(found["loss"].item())
        gather = self.accelerator.gather_for_metrics
        self.margins = [*self.margins, gather(found["margins"]).cpu()]
        self.num_tokens += int(gather(inputs["attention_mask"].sum()).sum())
        return found["loss"]

    def log(self, logs: dict[str, float], *args: object, **kwargs: object) -> None:
        """Add what was put aside since the last log."""
        if self.margins:
            margins, self.margins = torch.cat(self.margins), []
            logs["rewards/margins"] = margins.mean().item()
            logs["rewards/accuracies"] = ((margins > 0) + 0.5 * (margins == 0)).mean().item()
            logs["num_tokens"] = self.num_tokens
        super().log(logs, *args, **kwargs)


def _check_first(loss: float) -> None:
    if abs(loss - math.log(2)) > TOLERANCE:
        raise InputError(
            f"reward model: its first loss is {loss:.6f}, not ln 2 = {math.log(2):.6f}: the head does not start at 0; "
            "start again with an empty work folder"
        )


def adapted(model: PreTrainedModel, adapter: Adapter, seed: int) -> PeftModel:
    """`model` with a fresh adapter; raises InputError where it is no plain LoRA, which grading takes."""
    if adapter.kind not in GRADING:
        raise InputError(
            f"reward_model.adapter.kind: {adapter.kind}: a reward model takes {' or '.join(GRADING)}; set it under "
            "reward_model.adapter"
        )
    set_all_seeds(seed)
    return get_peft_model(model, adapters.peft_config(model, adapter))


def trainer(
    model: ScalarModel, processor: ProcessorMixin, rows: pl.DataFrame, config: TrainingArguments, work: Path
) -> RewardTrainer:
    """The trainer of `model` on the pairs in `rows` (examples.training_rows); live metrics go to `work`."""
    hooks = [callbacks.Live(work), callbacks.History(counts_on=False), callbacks.Progress("REWARD MODEL")]
    hooks.append(resuming.Checkpoints())
    collate = reward_model.collator(model.policy, processor)
    made = RewardTrainer(model, config, collate, rows.to_dicts(), callbacks=hooks)
    made.remove_callback(PrinterCallback)
    made.model_accepts_loss_kwargs = False  # the loss is a mean over pairs: accumulated steps are averaged
    return made


def train(made: RewardTrainer) -> None:
    """Train to the end, from the newest whole checkpoint where there is one, the frozen tower once a batch.

    Raises InputError as `runs.train`.
    """
    with frozen_pictures(made.model.policy):
        resuming.go_on(made)


@torch.no_grad()
def margins(model: ScalarModel, processor: ProcessorMixin, rows: pl.DataFrame, size: int) -> np.ndarray:
    """r⁺ − r⁻ (n,) of every pair in `rows`, `size` of them at a time."""
    collate, device = reward_model.collator(model.policy, processor), model.head.weight.device
    model.eval()

    def measure(part: list[dict]) -> list[float]:
        return model(**{name: value.to(device) for name, value in collate(part).items()})["margins"].tolist()

    parts = progress(batching.cut(rows.to_dicts(), size), "held-out pairs")
    return np.array([value for part in parts for value in batching.halving(measure, part)])


def report(made: RewardTrainer, held: pl.DataFrame, found: np.ndarray, num_pairs: int) -> dict[str, object]:
    """What is known of a trained model: accuracy on held-out pairs (`accuracy`), losses, cost."""
    log = made.state.log_history
    losses, tokens = ([entry[name] for entry in log if name in entry] for name in ("loss", "num_tokens"))
    return {
        **accuracy(found, held["text"].to_list()),
        "margin": float(found.mean()),
        "loss": float(np.logaddexp(0, -found).mean()),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "num_pairs": num_pairs,
        "total_steps": made.state.max_steps,
        "tokens": tokens[-1],
    }
