"""What trained, on disk as scoring loads it: an adapter, or full weights in the base's dtype."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from memedynamics import checkpoints, checksums, trained_on

Policy = PreTrainedModel | PeftModel


def save(model: Policy, folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Save a policy as scoring loads it, whole or not at all: its adapter, or its full weights.

    `weights` are what trains of a model that lies in shards (`processes.gathered`).
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (save_adapter if isinstance(model, PeftModel) else save_full)(model, partial, weights)
    trained_on.keep(Path(model.config._name_or_path), partial)
    checksums.seal_folder(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def save_adapter(model: PeftModel, folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Save the adapter that trains as an ordinary PEFT folder: equal bytes for equal weights."""
    model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False, state_dict=weights)
    # PEFT writes a set in the order of its hashes, and a model card that nobody asked for.
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    for modules in ("target_modules", "feedforward_modules"):
        if isinstance(config.get(modules), list):
            config[modules].sort()
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))


def save_full(model: PreTrainedModel, folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Save full weights, rounded to the dtype that the base is stored in; the float32 ones are in the checkpoints.

    So a milestone is as large as the base, its start equals the base to the last bit, and what differs is the update.
    """
    dtype = checkpoints.stored_dtype(Path(model.config._name_or_path))
    model.save_pretrained(folder, state_dict=_rounded(weights or model.state_dict(), getattr(torch, dtype)))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": dtype}, indent=2, sort_keys=True) + "\n")


def _rounded(weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    # Tied weights stay one tensor, so that they are stored once.
    made: dict[int, torch.Tensor] = {}
    state = {name: value.detach() for name, value in weights.items()}
    for value in state.values():
        if value.data_ptr() not in made:
            made[value.data_ptr()] = value.to("cpu", dtype if value.is_floating_point() else None)
    return {name: made[value.data_ptr()] for name, value in state.items()}
