"""A run trained by LLaMA-Factory, from the same start and into the same artefacts as any other run.

The adapter is made here as TRL's trainers make it and handed over; what comes back are the same tensors, trained, under
the config that this project's PEFT wrote. History keeps LLaMA-Factory's own names, which are TRL's where both log a
thing; it counts tokens as num_input_tokens_seen.
"""

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import polars as pl
import torch
import yaml
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import PreTrainedModel, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from memedynamics import checksums, llamafactory_data, resuming, runs, saving, schemas, tables, trained_on
from memedynamics.adapters import peft_config
from memedynamics.config import Adapter
from memedynamics.errors import InputError
from memedynamics.milestones import steps
from memedynamics.trainer_arguments import Config
from memedynamics.training import loss_reference
from memedynamics.vlm import load_processor

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def begin(policy: PreTrainedModel | PeftModel, adapter: Adapter, seed: int, folder: Path) -> PeftModel:
    """The policy as training finds it, its adapter saved in `folder`: fresh as TRL would make it, or where it began."""
    if not isinstance(policy, PeftModel):
        set_seed(seed)  # TRL seeds right before PEFT draws the factors
        policy = get_peft_model(policy, peft_config(policy, adapter))
    saving.save(policy, folder)
    return policy


def facts(
    policy: PeftModel, config: Config, reference: Literal["base", "parent"] | None, environment: Path
) -> dict[str, object]:
    """Parameters of the text decoder, which operations are counted from, and of the adapter; where the run starts, what
    its loss compares with, and the packages of LLaMA-Factory's `environment`.
    """
    return {
        "decoder": runs.decoder_parameters(policy),
        "trainable": sum(p.numel() for p in policy.parameters() if p.requires_grad),
        "starts_at": getattr(policy, "starts_at", "base"),
        "loss_reference": loss_reference(config, policy, reference),
        "packages": json.loads(environment.read_text()).get("packages"),
    }


def first_loss(config: Config, own: Iterable[str], known: Mapping[str, object]) -> float | None:
    """What the loss of the first step must be: ln 2 where DPO compares the policy with its own start, else unknown.

    `own`: LLaMA-Factory's own arguments, of which some add terms to the loss; `known`: from `facts`.
    """
    plain = getattr(config, "loss_type", None) == ["sigmoid"] and not any(name.startswith("pref_") for name in own)
    return math.log(2) if plain and known["loss_reference"] == known["starts_at"] else None


def write_inputs(
    kind: str,
    rows: pl.DataFrame,
    policy: PeftModel,
    model: Path,
    fractions: list[float],
    work: Path,
    loss: float | None = None,
) -> None:
    """Write the datasets and the entry's settings into `work`; `loss`: from `first_loss`."""
    processor = load_processor(model)
    shape = llamafactory_data.template(policy.get_base_model(), processor)
    llamafactory_data.write_dataset(rows, shape["between"], work / "data")
    batch = llamafactory_data.expected(kind, rows, processor, shape["end"], work)
    llamafactory_data.write_settings(work / "settings.json", shape, batch, fractions, work / "milestones", loss)


def write_arguments(given: dict[str, object], output: Path, file: Path) -> None:
    """Write LLaMA-Factory's arguments, with the newest whole checkpoint in `output` where there is one."""
    output.mkdir(parents=True, exist_ok=True)
    while (checkpoint := resuming.newest_checkpoint(output)) and resuming.is_last(checkpoint):
        shutil.rmtree(checkpoint)  # from it, one step more would be taken
    if checkpoint:
        given = {**given, "resume_from_checkpoint": str(checkpoint)}
    file.write_text(yaml.safe_dump(given, sort_keys=False, allow_unicode=True), encoding="utf-8")


def ended(output: Path) -> bool:
    """Whether LLaMA-Factory has trained to its end in `output`, which nobody noted: its own last word is there."""
    return (output / TRAINER_STATE_NAME).exists() and resuming.is_last(output)


def write(
    kind: str, rows: pl.DataFrame, known: dict[str, object], fractions: list[float], work: Path, output: dict[str, Path]
) -> None:
    """Write the artefacts of the finished run in `work` to `output` (milestones, history, rollouts, run)."""
    state = json.loads((work / "checkpoints/trainer_state.json").read_text())
    saved = steps(fractions, state["max_steps"])
    for step in set(saved.values()):
        adopt(work / "milestones" / str(step), work / "adapter", fresh=step == 0)
    runs.collect(saved, work / "milestones", output["milestones"])
    tables.write(runs.history(state["log_history"]), output["history"], "history")
    tables.write(schemas.SCHEMAS["rollouts"].empty_table(), output["rollouts"], "rollouts")
    checksums.write_json(output["run"], summary(kind, rows, known, state, saved))


def adopt(folder: Path, start: Path, fresh: bool) -> None:
    """Give the adapter in `folder` the config of `start`, the one training began at.

    Raises InputError where it holds other tensors, or as the run's `fresh` start other values: then LLaMA-Factory did
    not train the adapter that it was given.
    """
    found, begun = load_file(folder / WEIGHTS), load_file(start / WEIGHTS)
    shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in (found, begun)]
    if shapes[0] != shapes[1] or (fresh and not all(torch.equal(found[name], begun[name]) for name in begun)):
        raise InputError(f"{folder}: is not the adapter that LLaMA-Factory was given to train; use backend trl")
    for extra in set(folder.iterdir()) - {folder / WEIGHTS}:
        extra.unlink()
    for name in (CONFIG, trained_on.FILE):
        if (start / name).is_file():
            (folder / name).write_bytes((start / name).read_bytes())
    checksums.seal_folder(folder)


def summary(
    kind: str, rows: pl.DataFrame, known: dict[str, object], state: dict, saved: dict[str, int]
) -> dict[str, object]:
    """What run.json says, as `runs.summary` has it; operations as `runs.flops` counts them for SFT and DPO."""
    seen = [entry["num_input_tokens_seen"] for entry in state["log_history"] if "num_input_tokens_seen" in entry]
    forward = 2.0 * known["decoder"] * int(seen[-1])
    return {
        "kind": "adapter",
        "reference": "base",
        "starts_at": known["starts_at"],
        "loss_reference": known["loss_reference"],
        "backend": "llamafactory",
        "packages": known["packages"],
        "total_steps": state["max_steps"],
        "steps": saved,
        "num_prompts": rows["id"].n_unique(),
        "epochs": state["epoch"],
        "tokens": int(seen[-1]),
        "flops": forward * (3 if kind == "dpo" else 2),
        "trainable_parameters": known["trainable"],
        "label_balance": rows["label"].mean(),
        "mean_num_correct": rows["num_correct"].mean(),
    }
