"""Weight updates ΔW = W − W0 of one run, module by module, at its milestones; no model is ever built.

1. A plain LoRA, rank-stabilised or not, gives its factors: ΔW = s B A with s = α/r or α/√r (Kalajdzievski 2312.03732),
   and α and r per module where the adapter has patterns.
2. Any other PEFT layer (DoRA, LoHa, OFT, …) has no such factors for what it changes: the layer is built alone, over
   the base's weight, and merged in float32.
3. Full weights are subtracted in float32, one matrix at a time.
4. Prompt and prefix tuning change no weight.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from torch import nn

from memedynamics.adapter_files import ADAPTER, WHERE, is_soft
from memedynamics.errors import InputError
from memedynamics.spectra import Factors, Update
from memedynamics.weights import Weights, device

PREFIX = "base_model.model."


class FullMilestone:
    """Full weights in `folder`, against those of the base."""

    def __init__(self, folder: Path) -> None:
        self.weights = Weights(folder)

    def modules(self, known: Sequence[str]) -> list[str]:
        """All of the `known` modules: each may have changed."""
        return list(known)

    def update(self, module: str, weight: torch.Tensor) -> Update:
        """ΔW (out, in) of `module`, whose base weight is `weight`."""
        return self.weights(module).float() - weight.float()

    def rank(self, module: str) -> int | None:
        """No adapter: no bound but the module's own size."""
        return None

    def rows(self, module: str) -> torch.Tensor | None:
        """No adapter: no A."""
        return None


class AdapterMilestone:
    """A PEFT adapter in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, _config(folder)
        with safe_open(folder / ADAPTER, framework="pt") as tensors:
            self.keys = list(tensors.keys())

    def modules(self, known: Sequence[str]) -> list[str]:
        """Those of the `known` modules that the adapter changes; raises InputError where it changes others too."""
        found = [module for module in known if self._of(module)]
        covered = {key for module in found for key in self._of(module)}
        if left := sorted(set(self.keys) - covered):
            raise InputError(
                f"{self.folder / ADAPTER}: {left[0]} lies outside the layers whose base decomposition is at hand; "
                "let base_svd cover all linear layers (layers: all)"
            )
        return found

    def update(self, module: str, weight: torch.Tensor) -> Update:
        """ΔW of `module`, whose base weight is `weight` (out, in): factors of a plain LoRA, else the merged change."""
        tensors = self._tensors(module)
        if not self._has_factors(module):
            return _merged(self.folder, module, weight, tensors)
        left, right = tensors["lora_B.weight"].double(), tensors["lora_A.weight"].double()
        return Factors(left * self._scaling(module, right.shape[0]), right)

    def rank(self, module: str) -> int | None:
        """The r that bounds the rank of ΔW in `module`; None where nothing does: DoRA, say, rescales all of W0."""
        return self.rows(module).shape[0] if self._has_factors(module) else None

    def rows(self, module: str) -> torch.Tensor | None:
        """The factor A (r, in) of `module`; None where the adapter has none."""
        return self._tensors(module, "lora_A.weight").get("lora_A.weight")

    def _has_factors(self, module: str) -> bool:
        held = {key.removeprefix(f"{PREFIX}{module}.") for key in self._of(module)}
        return held == {"lora_A.weight", "lora_B.weight"} and not self.config.get("use_dora")

    def _of(self, module: str) -> list[str]:
        start = f"{PREFIX}{module}."
        return [key for key in self.keys if key.startswith(start)]

    def _tensors(self, module: str, only: str = "") -> dict[str, torch.Tensor]:
        start = len(PREFIX) + len(module) + 1
        with safe_open(self.folder / ADAPTER, framework="pt", device=str(device())) as tensors:
            return {key[start:]: tensors.get_tensor(key) for key in self._of(module) if key.endswith(only)}

    def _scaling(self, module: str, r: int) -> float:
        patterns = self.config.get("alpha_pattern") or {}
        fits = (alpha for name, alpha in patterns.items() if re.match(rf"(.*\.)?({name})$", module))
        alpha = next(fits, self.config["lora_alpha"])
        return alpha / r**0.5 if self.config.get("use_rslora") else alpha / r


Milestone = FullMilestone | AdapterMilestone


def open_milestone(folder: Path, kind: str) -> Milestone | None:
    """The milestone in `folder` of a run of `kind` (adapter or full); None where no weight is updated."""
    if kind == "full":
        return FullMilestone(folder)
    return None if is_soft(folder) else AdapterMilestone(folder)


def random_like(update: Update, start: torch.Tensor | None, seed: int) -> Update:
    """A random update of the same Frobenius norm and largest rank.

    Of factors: Gaussian B over the initial A `start` (r, in), where that is unknown over a Gaussian one. Of a matrix,
    as DoRA's: all Gaussian. Equal `seed`, equal numbers on any machine.
    """
    generator = torch.Generator().manual_seed(seed)
    size = norm(update)
    if isinstance(update, torch.Tensor):
        drawn = torch.randn(update.shape, generator=generator).to(device())
        return drawn * (size / norm(drawn))
    left, right = (torch.randn(side.shape, generator=generator, dtype=torch.float64).to(device()) for side in update)
    right = right if start is None else start.double()
    return Factors(left * (size / norm(Factors(left, right))), right)


def norm(update: Update) -> float:
    """Frobenius norm, of factors by way of their Gram matrices: ‖BA‖² = ⟨BᵀB, AAᵀ⟩."""
    if isinstance(update, Factors):
        left, right = update.left.double(), update.right.double()
        return float(((left.T @ left) * (right @ right.T)).sum().clamp(min=0).sqrt())
    return float(torch.linalg.norm(update.double()))


def _merged(folder: Path, module: str, weight: torch.Tensor, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """ΔW (out, in) of a PEFT layer built alone, under the module's own name so that patterns fit, and merged."""
    root = inner = nn.Module()
    *above, name = module.split(".")
    for part in above:
        inner.add_module(part, nn.Module())
        inner = inner.get_submodule(part)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device)
    linear.weight.data = weight.float().clone()
    inner.add_module(name, linear)
    inject_adapter_in_model(PeftConfig.from_pretrained(folder), root)
    set_peft_model_state_dict(root, {f"{PREFIX}{module}.{key}": tensor for key, tensor in tensors.items()})
    layer = root.get_submodule(module)
    assert isinstance(layer, BaseTunerLayer), f"{module} has no adapter"
    layer.merge()
    return layer.get_base_layer().weight.data - weight.float()


def _config(folder: Path) -> dict[str, object]:
    try:
        return json.loads((folder / WHERE).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / WHERE}: cannot be read ({error}); train or import the run again") from error
