"""PEFT's model of prompt learning with virtual tokens put in inside the text decoder (see `soft_prompts`)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from peft import PeftConfig, PeftModelForCausalLM, PeftType
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from memedynamics.errors import InputError
from memedynamics.virtual_attention import Pair, attend, positions

Called = tuple[tuple, dict[str, object]]  # what a module is called with


class SoftPromptModel(PeftModelForCausalLM):
    """PEFT's model of prompt learning, that learns, saves and switches as ever, but leaves the base model's forward be.

    Hooks on the text decoder put in the virtual tokens, so whatever reaches the decoder meets them.
    """

    def __init__(self, model: PreTrainedModel, peft_config: PeftConfig, adapter_name: str = "default") -> None:
        super().__init__(model, peft_config, adapter_name)
        self.requires_grad_(False)
        self.prompt_encoder[adapter_name].requires_grad_(not peft_config.inference_mode)
        self._pairs: list[Pair] | None = None
        self._known: dict[tuple[str, bool], tuple[tuple, list[Pair]]] = {}
        decoder = model.get_decoder()
        _check_windows(decoder)
        self._hooks = [
            decoder.register_forward_pre_hook(self._enter, with_kwargs=True),
            decoder.register_forward_hook(self._leave, always_call=True),
        ]
        for index, layer in enumerate(decoder.layers):
            self._hooks.append(layer.register_forward_pre_hook(self._hand_over(index), with_kwargs=True))
            self._hooks.append(layer.self_attn.register_forward_pre_hook(attend, with_kwargs=True))

    def forward(self, *args: object, **kwargs: object) -> object:
        """The base model's forward."""
        return self.base_model(*args, **kwargs)

    def generate(self, *args: object, **kwargs: object) -> object:
        """The base model's generate."""
        return self.base_model.generate(*args, **kwargs)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Inside, the model is the base model."""
        before, self._adapters_disabled = self._adapters_disabled, True
        try:
            yield
        finally:
            self._adapters_disabled = before

    def add_adapter(self, adapter_name: str, peft_config: PeftConfig, *args: object, **kwargs: object) -> None:
        """Add an adapter beside the active one; it is frozen, as a LoRA is."""
        super().add_adapter(adapter_name, peft_config, *args, **kwargs)
        if adapter_name != self.active_adapter:
            self.prompt_encoder[adapter_name].requires_grad_(False)

    def _setup_prompt_encoder(self, adapter_name: str) -> None:
        # PEFT refuses prefixes under checkpointing, which drops the cache that it would put them in.
        with _without_checkpointing(self.base_model.modules()):
            super()._setup_prompt_encoder(adapter_name)

    def switch(self, adapter_name: str | None) -> None:
        """Turn to one of the adapters, or with None to the base model."""
        self._adapters_disabled = adapter_name is None
        if adapter_name is not None:
            self.set_adapter(adapter_name, inference_mode=True)

    def unload(self) -> PreTrainedModel:
        """The base model, rid of all virtual tokens."""
        for hook in self._hooks:
            hook.remove()
        return self.base_model

    def _enter(self, decoder: nn.Module, args: tuple, kwargs: dict[str, object]) -> Called:
        if self._adapters_disabled:
            return args, kwargs
        self._pairs = self.pairs()
        count = self._pairs[0].keys.shape[-2]
        return args, {**kwargs, "position_ids": positions(kwargs) + count}

    def _leave(self, *_: object) -> None:
        self._pairs = None

    def _hand_over(self, index: int) -> Callable[..., Called]:
        # As an argument: under gradient checkpointing a layer runs once more in the backward pass, long after `_leave`.
        def hand_over(layer: nn.Module, args: tuple, kwargs: dict[str, object]) -> Called:
            return args, kwargs if self._pairs is None else {**kwargs, "virtual": self._pairs[index]}

        return hand_over

    def pairs(self) -> list[Pair]:
        """Keys and values of the active adapter's virtual tokens by layer; computed once where nothing learns."""
        weight = self.prompt_encoder[self.active_adapter].embedding.weight
        if torch.is_grad_enabled() and weight.requires_grad:
            return self._made(weight)
        # Tensors made in inference mode cannot be used outside it.
        name = (self.active_adapter, torch.is_inference_mode_enabled())
        state = (weight._version, weight.data_ptr(), self.base_model.dtype)
        if self._known.get(name, (None,))[0] != state:
            with torch.no_grad():
                self._known[name] = state, self._made(weight)
        return self._known[name][1]

    def _made(self, weight: Tensor) -> list[Pair]:
        weight = weight.to(self.base_model.device, self.base_model.dtype)
        if self.peft_type == PeftType.PREFIX_TUNING:
            config = self.active_peft_config
            parts = weight.view(len(weight), config.num_layers, 2, config.num_attention_heads, -1)
            return [Pair(*layer) for layer in parts.permute(1, 2, 3, 0, 4)[:, :, None]]
        decoder, cache = self.base_model.get_decoder(), DynamicCache()
        places = torch.arange(len(weight), device=weight.device)[None]
        # Checkpointing would drop the cache that the keys are read from.
        with self.disable_adapter(), _without_checkpointing(decoder.layers):
            # Not the module's call: hooks that wait for the sequence would take these for it.
            decoder.forward(inputs_embeds=weight[None], position_ids=places, past_key_values=cache, use_cache=True)
        return [Pair(layer.keys, layer.values) for layer in cache.layers]


def _check_windows(decoder: nn.Module) -> None:
    config = decoder.config
    if "flash" in config._attn_implementation and "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise InputError(
            "base.attn_implementation: the sliding windows of flash attention hide virtual tokens; choose sdpa"
        )


@contextmanager
def _without_checkpointing(modules: Iterable[nn.Module]) -> Iterator[None]:
    found = [module for module in modules if getattr(module, "gradient_checkpointing", False)]
    for module in found:
        module.gradient_checkpointing = False
    try:
        yield
    finally:
        for module in found:
            module.gradient_checkpointing = True
