"""A trained reward model as a reward for methods that draw their own responses, on the policy's own frozen base.

1. The base is in memory once: while responses are graded, the policy's adapter is off and the reward model's factors
   are added to the same linear layers. Afterwards everything is as it was; nothing of it is saved with the policy.
2. What is graded is the token ids that were drawn, not their text tokenized again.
3. A policy that trains all weights has no frozen base left, virtual tokens lie in hooks on it, and QLoRA's base is in
   four bits, on which the model was not trained: these take a second model.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin

from memedynamics import batching, vlm
from memedynamics.checkpoints import MANIFEST
from memedynamics.deltas import AdapterMilestone
from memedynamics.errors import InputError
from memedynamics.reward_model import ABOUT, fed, load_head, read_off
from memedynamics.rewards import Reward
from memedynamics.spectra import Factors

NAME = "reward_model"
BATCH = 16


class Learned(NamedTuple):
    """A reward model on disk: its factors B (out, r), A (r, in) by linear layer, and its head (1, d)."""

    factors: dict[str, tuple[Tensor, Tensor]]
    head: Tensor


def load(folder: Path, model: PreTrainedModel | PeftModel, base: Path) -> Learned:
    """The reward model in `folder` for `model`, whose base lies in `base`.

    Raises InputError where it was trained on another base, or its adapter is no plain LoRA.
    """
    about = json.loads((folder / ABOUT).read_text()) if (folder / ABOUT).is_file() else {}
    if about.get("base") != digest(base):
        raise InputError(f"{folder}: was trained on another base model than {base}; train the reward model again")
    adapter, layers = AdapterMilestone(folder), _linears(model)
    factors = {}
    for name in adapter.modules(list(layers)):
        update = adapter.update(name, layers[name].weight)
        if not isinstance(update, Factors):
            raise InputError(f"{folder}: its adapter is no plain LoRA; set reward_model.adapter.kind to lora or rslora")
        device = layers[name].weight.device
        factors[name] = tuple(half.to(device, torch.float32) for half in (update.left, update.right))
    return Learned(factors, load_head(folder).to(vlm.bare(model).device))


def digest(base: Path) -> str | None:
    """The digest of the base model's weights by its manifest; empty where it has none."""
    manifest = base / MANIFEST
    return json.loads(manifest.read_text())["digest"] if manifest.is_file() else None


def grader(folder: Path, policy: PreTrainedModel | PeftModel, processor: ProcessorMixin, base: Path) -> Reward:
    """The reward model in `folder` as TRL's reward, named `reward_model`: one number a drawn response.

    `policy` is what trains (TRL may put its adapter on afterwards) or a second copy of the model in `base`.
    """
    learned = load(folder, policy, base)

    def reward(
        completions: list, prompts: list, completion_ids: list[list[int]], image: list[Image.Image], **columns: object
    ) -> list[float]:
        rows = list(zip(map(_content, prompts), image, completion_ids, strict=True))
        with graded_by(learned, policy), torch.no_grad():
            parts = [batching.halving(grade, part) for part in batching.cut(rows, BATCH)]
        return [value for part in parts for value in part]

    def grade(rows: list[tuple[str, Image.Image, list[int]]]) -> list[float]:
        inputs = fed(processor, *(list(column) for column in zip(*rows, strict=True)))
        return read_off(vlm.bare(policy), learned.head, inputs.to(learned.head.device)).tolist()

    reward.__name__ = NAME
    return reward


@contextmanager
def graded_by(learned: Learned, policy: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Inside, `policy` is the frozen base with the reward model's factors on, in eval mode."""
    bare, layers = vlm.bare(policy), _linears(policy)
    adapted = [module for module in bare.modules() if isinstance(module, BaseTunerLayer)]
    training = bare.training
    hooks = [
        layers[name].register_forward_hook(partial(_add, left, right))
        for name, (left, right) in learned.factors.items()
    ]
    try:
        with policy.disable_adapter() if isinstance(policy, PeftModel) else nullcontext():
            for module in adapted:
                module.enable_adapters(False)
            bare.eval()
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in adapted:
            module.enable_adapters(True)
        bare.train(training)


def _add(left: Tensor, right: Tensor, module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
    return output + (args[0].to(right.dtype) @ right.T @ left.T).to(output.dtype)


def _linears(model: PreTrainedModel | PeftModel) -> dict[str, nn.Linear]:
    """The linear layers by the names they have in the bare model: PEFT moves what it adapts to `base_layer`."""
    named = vlm.bare(model).named_modules()
    return {name.removesuffix(".base_layer"): module for name, module in named if isinstance(module, nn.Linear)}


def _content(prompt: list[dict[str, object]]) -> str:
    """The user's words in a conversation as TRL hands it on, with or without a place for the picture."""
    content = prompt[-1]["content"]
    return content if isinstance(content, str) else next(part["text"] for part in content if part["type"] == "text")
