"""What runs inside LLaMA-Factory's own environment: its training, with the study's template and one callback.

`python -m memedynamics.llamafactory_entry ARGUMENTS SETTINGS`: its own arguments (YAML), and what else the study needs
(JSON, `llamafactory_data.write_settings`). Of this project only modules without dependencies are imported there.
1. The template is the study's rendered prompt, so that LLaMA-Factory adds no system message of its own.
2. Before the first step the batch that its collator makes of the first examples must be the study's own.
3. The first step's loss must be what it is where DPO's policy is its own reference: ln 2.
4. It saves the adapter at the milestones, and whole checkpoints: every `save_steps`, and once on SIGTERM.
"""

import gc
import json
import math
import shutil
import signal
import sys
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from memedynamics import live, milestones

# A line that begins so says which step is done, and is for the job that listens, not for its log.
STEP = "memedynamics step "
COMPLETE = "complete"
IGNORED = -100
# Policy and reference are one model on one batch, so rounding cancels; PiSSA's first loss is ln 2 + 0.0024.
TOLERANCE = 1e-3


class Study(TrainerCallback):
    """Milestones, checkpoints to resume from, a check of the first batch, and an end where a number is not finite."""

    def __init__(self, settings: dict) -> None:
        self.settings, self.folder = settings, Path(settings["milestones"])
        self.steps: set[int] = set()
        self.terminated = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: object, **kwargs: object
    ) -> None:
        """Compare the first batch, fix the milestones' steps, save the start, and listen for SIGTERM."""
        loader = kwargs["train_dataloader"]
        check_batch(self.settings["expected"], loader.dataset, loader.collate_fn)
        self.steps = set(milestones.steps(self.settings["fractions"], state.max_steps).values())
        # Between logs metrics are still being averaged: no checkpoint holds that.
        self.boundary = int(state.logging_steps)
        state.save_steps = self.boundary * math.ceil(state.save_steps / self.boundary)
        signal.signal(signal.SIGTERM, self._terminate)
        live.begin(self.folder.parent)
        if state.global_step == 0:
            self._save(model, 0)
        self._tell(state)

    def _terminate(self, *_: object) -> None:
        self.terminated = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: object, **kwargs: object
    ) -> None:
        """Save at a milestone; after SIGTERM, save and stop at the next step that can be resumed."""
        if state.global_step in self.steps:
            self._save(model, state.global_step)
        if self.terminated and state.global_step % self.boundary == 0:
            control.should_save = control.should_training_stop = True
        self._tell(state)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Mark the checkpoint as whole."""
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict, **kwargs: object
    ) -> None:
        """Write the numbers down for who watches, and stop on a first loss that shows another start or reference, and
        on a loss or gradient that is not finite.
        """
        live.note(self.folder.parent, state.global_step, state.max_steps, logs)
        expected = self.settings["first_loss"]
        # Later, or where several steps are one log, the policy has moved.
        if expected is not None and state.global_step == 1 and abs(logs.get("loss", expected) - expected) > TOLERANCE:
            sys.exit(
                f"error: LLaMA-Factory's first loss is {logs['loss']:.6f}, not {expected:.6f}: the policy does not "
                "start at its reference; use backend trl"
            )
        for metric in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(metric) or 0.0) and not (metric == "grad_norm" and args.fp16):
                sys.exit(
                    f"error: training diverged: {metric} is {logs[metric]} at step {state.global_step} of "
                    f"{state.max_steps}; lower learning_rate or max_grad_norm"
                )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """End with a message where the run was stopped before its last step."""
        if state.global_step < state.max_steps:
            sys.exit(f"error: training was stopped at step {state.global_step} of {state.max_steps}; run it again")

    def _save(self, model: object, step: int) -> None:
        folder, partial = self.folder / str(step), self.folder / f".{step}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial, save_embedding_layers=False)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    def _tell(self, state: TrainerState) -> None:
        print(f"{STEP}{state.global_step} of {state.max_steps}", flush=True)


def check_batch(expected: dict, dataset: object, collate: object) -> None:
    """End the process unless the collated first examples are the `expected` ones: tokens, labels and pixels.

    `expected`: sequences (token ids, for DPO all chosen, then all rejected), prompts (how many of each are prompt),
    pixels (file of the pictures' pixel values), tolerance.
    """
    from safetensors.torch import load_file

    count = expected["examples"]
    batch = collate([dataset[index] for index in range(count)])
    for place, (whole, prompt) in enumerate(zip(expected["sequences"], expected["prompts"], strict=True)):
        seen = batch["attention_mask"][place].bool()
        labels = [IGNORED] * prompt + whole[prompt:]
        if batch["input_ids"][place][seen].tolist() != whole or batch["labels"][place][seen].tolist() != labels:
            sys.exit(
                f"error: LLaMA-Factory's tokens or labels of training example {place % count} are not the study's; "
                "its template or processor differs for this model: use backend trl"
            )
    ours = load_file(expected["pixels"])["pixel_values"]
    theirs = batch["pixel_values"][: len(ours)].to(ours.dtype)
    if theirs.shape != ours.shape or (theirs - ours).abs().max() > expected["tolerance"]:
        sys.exit(
            "error: LLaMA-Factory's pixel values of the first training pictures are not the study's; its image "
            "processor differs for this model: use backend trl"
        )


def register(template: dict[str, str]) -> None:
    """Make the study's prompt known to LLaMA-Factory as a template."""
    from llamafactory.data.formatter import StringFormatter
    from llamafactory.data.mm_plugin import get_mm_plugin
    from llamafactory.data.template import register_template

    pictures = get_mm_plugin(
        template["plugin"], image_token=template["image_token"], video_token=template["video_token"]
    )
    register_template(
        name=template["name"],
        format_user=StringFormatter(slots=[f"{template['head']}{{{{content}}}}{template['tail']}"]),
        format_assistant=StringFormatter(slots=["{{content}}" + template["end"]]),
        mm_plugin=pictures,
    )


def main(arguments: Path, settings: Path) -> None:
    """Train with LLaMA-Factory."""
    import yaml
    from llamafactory.train.tuner import run_exp

    gc.enable()  # off while modules are imported
    told = json.loads(settings.read_text())
    register(told["template"])
    run_exp(yaml.safe_load(arguments.read_text()), [Study(told)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
