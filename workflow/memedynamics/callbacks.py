"""What happens around a trainer's steps: milestones, progress, checkpoints to resume from, and stopping.

All of it uses callbacks alone, so that it holds for every trainer. Only the main process writes.
"""

import json
import math
import shutil
import signal
from pathlib import Path

from accelerate import PartialState
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from trl.trainer.utils import RepeatSampler

from memedynamics import live, milestones, processes, saving
from memedynamics.errors import InputError
from memedynamics.job import is_first_process, progress
from memedynamics.mending import replace
from memedynamics.saving import Policy
from memedynamics.vlm import bare

# Written into a checkpoint once the trainer has finished it: without it, a kill cut the checkpoint short.
COMPLETE = "complete"


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


class Checkpoints(TrainerCallback):
    """Checkpoints that can be resumed exactly: whole ones, at multiples of `boundary` steps, and one on SIGTERM.

    Between boundaries GRPO still uses completions drawn earlier, and between logs metrics are still being averaged:
    no checkpoint holds either.
    """

    def __init__(self, boundary: int = 1) -> None:
        self.boundary, self.terminated = boundary, False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Round the distance of checkpoints up to a boundary, and listen for SIGTERM."""
        self.boundary = math.lcm(self.boundary, int(state.logging_steps))
        state.save_steps = self.boundary * math.ceil(state.save_steps / self.boundary)
        self.previous = signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, *_: object) -> None:
        self.terminated = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """After SIGTERM to any process, save and stop at the next boundary."""
        if state.global_step % self.boundary == 0 and processes.anywhere(self.terminated):
            control.should_save = control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Mark the checkpoint as whole."""
        PartialState().wait_for_everyone()  # each process writes a part of it
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Raise InputError when the run was stopped before its last step."""
        signal.signal(signal.SIGTERM, self.previous)
        if state.global_step < state.max_steps:
            raise InputError(f"training was stopped at step {state.global_step} of {state.max_steps}; run it again")


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`; those that a kill cut short are removed by the main process."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [path for path in found if (path / COMPLETE).exists()]
    if is_first_process():
        for path in set(found) - set(whole):
            shutil.rmtree(path)
    return whole[-1] if whole else None


def is_last(checkpoint: Path) -> bool:
    """Whether a checkpoint was saved at the last step: its run had come to its end, and nobody noted that."""
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text())
    return state["global_step"] >= state["max_steps"]


def go_on(trainer: Trainer) -> None:
    """Train to the end, from the newest whole checkpoint where there is one.

    From the last step's, where that lies within an epoch, transformers would take one step more.
    """
    checkpoint = newest_checkpoint(Path(trainer.args.output_dir))
    if checkpoint and is_last(checkpoint):
        replace(trainer, "_run_epoch", lambda *_, **__: None)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


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


class Epochs(TrainerCallback):
    """Reseeds the sampler at every epoch, so that a run resumed in its second sees the prompts it would have seen.

    GRPO's sampler is seeded only once; those of SFT and DPO already depend on seed and epoch alone.
    """

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: object,
        **kwargs: object,
    ) -> None:
        """Seed the order of this epoch's prompts."""
        sampler = train_dataloader.batch_sampler
        while not isinstance(sampler, RepeatSampler):
            sampler = getattr(sampler, "batch_sampler", None) or sampler.sampler
        if sampler.shuffle:
            sampler.generator.manual_seed(args.seed + int(state.epoch or 0))


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
