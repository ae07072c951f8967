"""Checkpoints to resume from, stopping, and going on: an interrupted run ends bit for bit like one that was not.

GRPO and its kin resume exactly only at whole rounds of generation.
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

from memedynamics import processes
from memedynamics.errors import InputError
from memedynamics.job import is_first_process
from memedynamics.mending import replace

# Written into a checkpoint once the trainer has finished it: without it, a kill cut the checkpoint short.
COMPLETE = "complete"


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
