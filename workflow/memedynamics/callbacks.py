"""What happens around a trainer's steps: milestones, a checked history, progress.

All of it uses callbacks alone, so that it holds for every trainer. Only the main process writes.
"""

import math
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from memedynamics import live, milestones, processes, saving
from memedynamics.errors import InputError
from memedynamics.job import progress
from memedynamics.saving import Policy
from memedynamics.vlm import bare


class Milestones(TrainerCallback):
    """Saves what trains at every milestone as `folder/<step>`; equal steps are one save."""

    def __init__(self, fractions: list[float], folder: Path) -> None:
        self.fractions, self.folder = fractions, folder
        self.steps: dict[str, int] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Policy, **kwargs: object
    ) -> None:
        """Fix the steps now that their total is known, and save the start."""
        self.steps = milestones.steps(self.fractions, state.max_steps)
        # A run resumed later than step 0 has already saved its start.
        if state.global_step == 0:
            self._save(state, model)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Policy, **kwargs: object
    ) -> None:
        """Save at a milestone."""
        if state.global_step in self.steps.values():
            self._save(state, model)

    def _save(self, state: TrainerState, model: Policy) -> None:
        weights = processes.gathered(model)
        if state.is_world_process_zero:
            saving.save(model, self.folder / str(state.global_step), weights)


class WholeHead(TrainerCallback):
    """Puts a trained output head that lies in shards together before every pass.

    TRL uses the head's weight without calling the head, which is what puts shards together. Accelerate spares most
    models that by keeping the head with the last norm, which it does not find in vision-language models; TRL then takes
    a copy of the weight, whose gradients no process hears of from the others.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Policy, **kwargs: object
    ) -> None:
        """Now that the model lies in shards, watch its passes."""
        head = bare(model).get_output_embeddings()
        if any(parameter.requires_grad for parameter in head.parameters()):
            model.register_forward_pre_hook(lambda *_: head.unshard())


class History(TrainerCallback):
    """Keeps the token count going after a resume, and stops on a loss, gradient or reward that is not finite."""

    WATCHED = ("loss", "grad_norm", "reward")

    def __init__(self, counts_on: bool) -> None:
        """`counts_on`: the trainer's own token count survives a resume (GRPO's; SFT's and DPO's start from 0)."""
        self.counts_on = counts_on

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Remember how many tokens were counted before a resume."""
        counted = [entry["num_tokens"] for entry in state.log_history if "num_tokens" in entry]
        self.earlier = counted[-1] if counted and not self.counts_on else 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: object,
    ) -> None:
        """Correct the count, and raise InputError on a number that is not finite."""
        if "num_tokens" in logs:
            state.log_history[-1]["num_tokens"] += self.earlier
        for metric in self.WATCHED:
            # Under float16 the loss scaler meets infinite gradients by design and skips those steps.
            skipped = metric == "grad_norm" and args.fp16
            if not skipped and not math.isfinite(logs.get(metric) or 0.0):
                raise InputError(
                    f"training diverged: {metric} is {logs[metric]} at step {state.global_step} of "
                    f"{state.max_steps}; lower learning_rate or max_grad_norm"
                )


class Live(TrainerCallback):
    """Writes down in `folder` what is logged, as it is logged (module `live`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Begin a new row."""
        if state.is_world_process_zero:
            live.begin(self.folder)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: object,
    ) -> None:
        """Write a row."""
        if state.is_world_process_zero:
            live.note(self.folder, state.global_step, state.max_steps, logs)


class Progress(TrainerCallback):
    """A progress bar over optimiser steps."""

    def __init__(self, what: str) -> None:
        self.what = what

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Open the bar."""
        self.bar = progress(None, self.what, total=state.max_steps) if state.is_world_process_zero else None
        if self.bar is not None:
            self.bar.update(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """One step further."""
        if self.bar is not None:
            self.bar.update(1)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
