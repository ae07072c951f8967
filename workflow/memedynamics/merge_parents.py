"""The float32 update of every stored tensor of a run, against the base model, one tensor at a time.

1. Adapters change the weights of linear layers: ΔW from `deltas`, right for rsLoRA, DoRA and IA³ alike; IA³ also
   scales the bias of a layer whose output it scales.
2. Full weights may differ in every tensor, norms and embeddings included.
3. Tensors go by the names they are stored under; names differ between versions of transformers in their wrappers alone.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from memedynamics import checkpoints, deltas, external, trained_on
from memedynamics.adapter_files import ADAPTER, WHERE, is_soft
from memedynamics.errors import InputError
from memedynamics.external import unwrapped
from memedynamics.spectra import Factors
from memedynamics.weights import device, linears


class FullParent:
    """Full weights in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.files = stored(folder)

    def update(self, name: str, tensor: Tensor) -> Tensor | None:
        """What became of the base's `tensor`, in float32; None where the run has no such tensor (a tied head)."""
        if unwrapped(name) not in self.files:
            return None
        return read(*self.files[unwrapped(name)]).float() - tensor.float()


class AdapterParent:
    """A PEFT adapter in `folder`, on the base model in `base`."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.milestone = deltas.AdapterMilestone(folder)
        self.modules = {unwrapped(module): module for module in self.milestone.modules(linears(base, "all"))}
        if biases := [key for key in self.milestone.keys if key.endswith(".bias")]:
            raise InputError(f"{folder / ADAPTER}: {biases[0]} has no weight to go into; train without lora_bias")

    def update(self, name: str, tensor: Tensor) -> Tensor | None:
        """What becomes of the base's `tensor`, in float32; None where the adapter leaves it alone."""
        module, _, last = name.rpartition(".")
        module = self.modules.get(unwrapped(module))
        if module is None:
            return None
        if last == "bias":
            return self._bias(module, tensor.float())
        change = self.milestone.update(module, tensor)
        return change.dense(torch.float32) if isinstance(change, Factors) else change

    def _bias(self, module: str, bias: Tensor) -> Tensor | None:
        with safe_open(self.milestone.folder / ADAPTER, framework="pt", device=str(bias.device)) as tensors:
            key = f"{deltas.PREFIX}{module}.ia3_l"
            if key not in self.milestone.keys:
                return None
            scale = tensors.get_tensor(key).float()
        # A factor an output, or (in feed-forward layers) an input, which the bias does not pass.
        return bias * (scale[:, 0] - 1) if scale.shape == (len(bias), 1) else None


Parent = FullParent | AdapterParent


def open_parent(milestones: Path, run: Path, base: Path) -> Parent:
    """The end of the run of `run` (run.json) in `milestones`, checked to be one of the base model in `base`.

    Raises InputError where it is of another base model, or changes no weight.
    """
    folder, kind = milestones / "1", json.loads(run.read_text())["kind"]
    if kind == "full":
        external.check_full(folder, base)
        return FullParent(folder)
    if is_soft(folder):
        raise InputError(
            f"{folder}: changes no weight (prompt or prefix tuning), so there is nothing to merge; leave it out"
        )
    if json.loads((folder / WHERE).read_text()).get("peft_type") == "LORA":
        external.check_adapter(folder, base)
    trained_on.check(folder, base)
    return AdapterParent(folder, base)


def stored(folder: Path) -> dict[str, tuple[Path, str]]:
    """File and stored name of every tensor of the model in `folder`, by `unwrapped` name, in the files' order."""
    found = {}
    for file in checkpoints.weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            found |= {unwrapped(name): (file, name) for name in tensors.keys()}  # noqa: SIM118
    return found


def read(file: Path, name: str) -> Tensor:
    """One tensor of a safetensors file, on the GPU where there is one."""
    with safe_open(file, framework="pt", device=str(device())) as tensors:
        return tensors.get_tensor(name)
