"""A control for what training did: an update of the same size in every module, in random directions."""

import zlib
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedModel

NAME = "random_update"


def add(model: PreTrainedModel | PeftModel, folder: Path) -> bool:
    """Give `model` an adapter whose ΔW has, module by module, the Frobenius norm of the one in `folder`.

    Factors are Gaussian, seeded by the module's name. False, and nothing is added, where a model has no plain factors
    (full weights, other adapters than LoRA, DoRA's magnitudes).
    """
    config = next(iter(model.peft_config.values())) if isinstance(model, PeftModel) else None
    if config is None or config.peft_type != "LORA" or config.use_dora:
        return False
    model.load_adapter(folder, adapter_name=NAME)
    model.requires_grad_(False)
    for path, module in model.named_modules():
        if isinstance(module, LoraLayer) and NAME in module.lora_A:
            randomise(module.lora_A[NAME].weight, module.lora_B[NAME].weight, path)
    return True


def activate(model: PeftModel) -> PeftModel:
    """`model` switched to the adapter of `add`."""
    model.base_model.enable_adapter_layers()
    model.set_adapter(NAME, inference_mode=True)
    return model


@torch.no_grad()
def randomise(a: Tensor, b: Tensor, name: str) -> None:
    """Put Gaussian factors into `a` (r, in) and `b` (out, r), in place, with ‖b·a‖F as before."""
    wanted = norm(a, b)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    for factor in (a, b):
        factor.copy_(torch.randn(factor.shape, generator=generator))
    b.mul_(wanted / norm(a, b))


def norm(a: Tensor, b: Tensor) -> Tensor:
    """‖b·a‖F from the factors: √tr(bᵀb · aaᵀ), in float64."""
    a, b = a.double(), b.double()
    return ((b.T @ b) * (a @ a.T)).sum().clamp(min=0).sqrt()
