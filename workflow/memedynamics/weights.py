"""One weight matrix at a time out of a model folder's safetensors: no model is ever built.

Names of stored tensors and of modules differ between versions of transformers in their wrappers alone
(`model.layers.0…` is stored, `model.language_model.layers.0…` is the module), so both are compared without them.
"""

import re
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForImageTextToText

from memedynamics import checkpoints
from memedynamics.adapters import text_linears
from memedynamics.errors import InputError
from memedynamics.external import unwrapped

LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def linears(folder: Path, layers: str) -> list[str]:
    """Names of the text decoder's linear layers in the model in `folder` that `layers` means (module `layers`)."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    return text_linears(model, layers)


def layer(module: str) -> int:
    """The decoder layer a module lies in; -1 outside."""
    found = LAYER.search(module)
    return int(found[1]) if found else -1


def kind(module: str) -> str:
    """The module's own name within its layer: q_proj, down_proj, …"""
    return module.rpartition(".")[2]


class Weights:
    """The weight matrices of the model in `folder`, by module name; each is read when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, {}
        for file in checkpoints.weight_files(folder):
            with safe_open(file, framework="pt") as tensors:
                self.files |= {unwrapped(name): (file, name) for name in tensors.keys()}  # noqa: SIM118

    def __call__(self, module: str) -> torch.Tensor:
        """The weight (out, in) of `module` as stored, on the GPU where there is one.

        Raises InputError when the folder has no such weight.
        """
        try:
            file, name = self.files[unwrapped(f"{module}.weight")]
        except KeyError as error:
            raise InputError(f"{self.folder}: the weight files hold no {module}; is it another model?") from error
        with safe_open(file, framework="pt", device=str(device())) as tensors:
            return tensors.get_tensor(name)
