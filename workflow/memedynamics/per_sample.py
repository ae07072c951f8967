"""Per-sample gradients of linear layers' weights, from one backward pass over a whole batch.

1. For y_it = W x_it the gradient of sample i's scalar with respect to W is Σ_t (∂/∂y_it) ⊗ x_it (Goodfellow 2015,
   1510.01799). It is exact as long as samples do not mix, and the scalar that is differentiated is the sum of theirs.
2. An adapter's update is B A x: its factors are the linear layers `lora_A` and `lora_B`. Where B = 0, as in a fresh
   adapter, A has no gradient while B has one.
3. No weight has to require a gradient, but something in front of the layers must: the input embeddings, say.
4. A layer that runs twice in one forward pass is reported twice; its gradient is the sum of both.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from memedynamics.adapters import peft_config
from memedynamics.config import Adapter
from memedynamics.methods import LORA
from memedynamics.vlm import bare

Consumer = Callable[[str, Tensor], None]  # a layer's name and its samples' gradients (n, out, in), float32


def factors(model: PreTrainedModel | PeftModel, which: Literal["A", "B"] = "B") -> dict[str, nn.Linear]:
    """LoRA's factor `which` of every adapted layer, of the adapter that is on, by the adapted layer's full name.

    Empty where the model has no such adapter: full weights, or another kind of adapter.
    """
    found = {}
    for name, module in bare(model).named_modules():
        if isinstance(module, LoraLayer) and not module.disable_adapters:
            layers = getattr(module, f"lora_{which}")
            for active in set(module.active_adapters) & set(layers):
                found[name] = layers[active]
    return found


def fresh_adapter(model: PreTrainedModel, adapter: Adapter, seed: int = 0) -> PreTrainedModel | PeftModel:
    """`model` with a new `adapter` on it, B = 0 and A drawn from `seed`: the same function, with factors.

    The model as it is where `adapter` is no LoRA: there are no factors then.
    """
    if adapter.kind not in LORA:
        return model
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, peft_config(model, adapter)).requires_grad_(False).eval()


class Recorder:
    """Hands per-sample gradients to `consume` during backward passes; while that is None they go unrecorded."""

    consume: Consumer | None = None

    def watch(self, name: str, layer: nn.Linear) -> torch.utils.hooks.RemovableHandle:
        """Record `layer`, called `name`, from its next forward pass on."""
        return layer.register_forward_hook(lambda _, given, output: self._wait(name, given[0].detach(), output))

    def _wait(self, name: str, given: Tensor, output: Tensor) -> None:
        def receive(gradient: Tensor) -> None:
            if self.consume is not None:
                self.consume(name, weight_gradients(given, gradient))

        if output.requires_grad:
            output.register_hook(receive)


@contextmanager
def recording(layers: Mapping[str, nn.Linear]) -> Iterator[Recorder]:
    """Inside, forward passes through `layers` are recorded; set the recorder's `consume` before the backward pass.

    The gradients come one layer at a time and are gone after `consume`, so no more than one layer's is held.
    """
    recorder = Recorder()
    handles = [recorder.watch(name, layer) for name, layer in layers.items()]
    try:
        yield recorder
    finally:
        for handle in handles:
            handle.remove()


def weight_gradients(given: Tensor, gradient: Tensor) -> Tensor:
    """Gradients (n, out, in) of a linear layer's weight from inputs (n, T, in) and `gradient` at outputs (n, T, out).

    Summed in float32 whatever the dtype.
    """
    return gradient.float().mT @ given.float()
