"""Prompt and prefix tuning of vision-language models: V virtual tokens that every token of the text decoder can see.

1. Prompt tuning (Lester et al., 2104.08691) learns V embeddings before the sequence, prefix tuning (Li & Liang,
   2101.00190) their keys and values in every layer. Attention is causal, so what an embedding becomes depends on
   nothing behind it: either way a layer has V keys and values, which its attention puts before those of the sequence.
2. To everything outside the decoder a sequence keeps its T tokens: logits, caches, masks, losses and `generate` never
   meet a virtual token. PEFT's own forward instead lengthens the inputs by V embeddings without their token ids, which
   loses the places of pictures, the rotary axes of Qwen-VL, and whatever calls the inner model directly.
3. Positions: virtual tokens have 0 … V-1, and the sequence's, on every rotary axis, are V higher. Where the model would
   count padding they are counted from the mask, for the distance to the virtual tokens matters.
4. Virtual tokens are seen from everywhere, also through a sliding window.
5. Files are PEFT's own: `adapter_config.json` and `prompt_embeddings` in `adapter_model.safetensors`. PEFT's forward
   gives the same logits where positions run on one axis and windows reach to the start.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftConfig, PeftModel, PeftModelForCausalLM, PeftType, PrefixTuningConfig, PromptTuningConfig
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from memedynamics.errors import InputError
from memedynamics.methods import Adapter

CONFIGS = {"prompt": PromptTuningConfig, "prefix": PrefixTuningConfig}
# Embeddings of sampled tokens are of the size the decoder knows (Lester et al.); PEFT draws from N(0, 1) by default.
DEFAULTS = {"prompt": {"prompt_tuning_init": "SAMPLE_VOCAB"}, "prefix": {}}
OPTIONS = {
    "prompt": ("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"),
    "prefix": ("init_weights",),
}

CHOICES = {"prompt_tuning_init": ("RANDOM", "SAMPLE_VOCAB", "TEXT"), "init_weights": (None, "zero")}


class Pair(NamedTuple):
    """Keys and values of the virtual tokens in one layer: (1, heads, V, D) each."""

    keys: Tensor
    values: Tensor


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
        self._hooks = [
            decoder.register_forward_pre_hook(self._enter, with_kwargs=True),
            decoder.register_forward_hook(self._leave, always_call=True),
        ]
        for index, layer in enumerate(decoder.layers):
            self._hooks.append(layer.register_forward_pre_hook(self._hand_over(index), with_kwargs=True))
            self._hooks.append(layer.self_attn.register_forward_pre_hook(_attend, with_kwargs=True))

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

    def _enter(self, decoder: nn.Module, args: tuple, kwargs: dict[str, object]) -> tuple[tuple, dict[str, object]]:
        if self._adapters_disabled:
            return args, kwargs
        self._pairs = self.pairs()
        count = self._pairs[0].keys.shape[-2]
        return args, {**kwargs, "position_ids": _positions(kwargs) + count}

    def _leave(self, *_: object) -> None:
        self._pairs = None

    def _hand_over(self, index: int) -> object:
        # As an argument: under gradient checkpointing a layer runs once more in the backward pass, long after `_leave`.
        def hand_over(layer: nn.Module, args: tuple, kwargs: dict[str, object]) -> tuple[tuple, dict[str, object]]:
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
        with self.disable_adapter(), _without_checkpointing(decoder):
            # Not the module's call: hooks that wait for the sequence would take these for it.
            decoder.forward(inputs_embeds=weight[None], position_ids=places, past_key_values=cache, use_cache=True)
        return [Pair(layer.keys, layer.values) for layer in cache.layers]


class _Joined:
    """What an attention layer takes for its cache: shows the virtual tokens before what the real one holds."""

    def __init__(self, cache: Cache | None, virtual: Pair) -> None:
        self.cache, self.virtual = cache, virtual

    def update(self, keys: Tensor, values: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Virtual, past and new keys and values; the virtual ones are kept nowhere."""
        if self.cache is not None:
            keys, values = self.cache.update(keys, values, *args, **kwargs)
        whole = zip(self.virtual, (keys, values), strict=True)
        return tuple(torch.cat([part.to(own.dtype).expand(len(own), -1, -1, -1), own], -2) for part, own in whole)


def _attend(attention: nn.Module, args: tuple, kwargs: dict[str, object]) -> tuple[tuple, dict[str, object]]:
    """Let one attention layer see the virtual tokens that were handed to it."""
    virtual = kwargs.pop("virtual", None)
    if virtual is None:
        return args, kwargs
    states, cache = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0], kwargs.get("past_key_values")
    mask = kwargs.get("attention_mask")
    if mask is None and "flash" not in attention.config._attn_implementation:
        past = 0 if cache is None else cache.get_seq_length(attention.layer_idx)
        mask = _causal(states.shape[1], past, states.device)
    joined = _Joined(cache, virtual)
    return args, {**kwargs, "past_key_values": joined, "attention_mask": _widened(mask, virtual.keys.shape[-2])}


def _causal(length: int, past: int, device: torch.device) -> Tensor:
    # No mask stands for causal attention without padding, which kernels line up with the first key.
    return torch.ones(1, 1, length, past + length, dtype=torch.bool, device=device).tril(past)


def _widened(mask: Tensor | None, count: int) -> Tensor | None:
    """`mask` with `count` columns in front that everything may look at: True, or 0 where masks are added."""
    if mask is None:
        return None
    # Padding flags (B, T), as flash attention takes them, are 1 where there is something to see.
    seen = 1 if mask.dtype == torch.bool or mask.ndim == 2 else 0
    return torch.cat([mask.new_full((*mask.shape[:-1], count), seen), mask], -1)


def _positions(kwargs: Mapping[str, object]) -> Tensor:
    """The positions that a decoder called with `kwargs` gives its tokens, padding not counted."""
    if kwargs.get("position_ids") is not None:
        return kwargs["position_ids"]
    found = kwargs["input_ids"] if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]
    batch, length = found.shape[:2]
    cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
    if isinstance(mask, Mapping):
        mask = mask["full_attention"]
    if mask is None:
        start = 0 if cache is None else cache.get_seq_length()
        return torch.arange(start, start + length, device=found.device).expand(batch, -1)
    if mask.ndim == 4:
        # The last token sees all that are not padding.
        last = mask[:, 0, -1].expand(batch, -1)
        mask = last if mask.dtype == torch.bool else last == 0
    return (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]


@contextmanager
def _without_checkpointing(decoder: nn.Module) -> Iterator[None]:
    # It would drop the cache that the keys are read from.
    layers = [layer for layer in decoder.layers if getattr(layer, "gradient_checkpointing", False)]
    for layer in layers:
        layer.gradient_checkpointing = False
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = True


def soft_config(model: PreTrainedModel, adapter: Adapter) -> PeftConfig:
    """PEFT's config of a `prompt` or `prefix` adapter; raises InputError on options that are none of its."""
    for name in adapter.options:
        if name not in OPTIONS[adapter.kind]:
            known = ", ".join(OPTIONS[adapter.kind])
            raise InputError(f"adapter.options.{name}: {adapter.kind} tuning has no such option; it takes {known}")
    for name, values in CHOICES.items():
        if adapter.options.get(name, values[0]) not in values:
            known = ", ".join(map(str, values))
            raise InputError(f"adapter.options.{name} {adapter.options[name]!r}: is none of {known}")
    options = {**DEFAULTS[adapter.kind], **adapter.options}
    if options.get("prompt_tuning_init") == "TEXT":
        options.setdefault("tokenizer_name_or_path", model.name_or_path)
    try:
        return CONFIGS[adapter.kind](task_type="CAUSAL_LM", num_virtual_tokens=adapter.tokens, **options)
    except ValueError as error:
        raise InputError(f"adapter.options: {error}") from error


def fresh(model: PreTrainedModel, adapter: Adapter, seed: int) -> SoftPromptModel:
    """`model` with a `prompt` or `prefix` that is still to be trained, drawn with `seed`."""
    config = soft_config(model, adapter)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy = SoftPromptModel(model, config)
    policy.starts_at = "own"
    return policy


def is_soft(folder: Path) -> bool:
    """Whether a saved adapter is a prompt or a prefix."""
    return PeftConfig.from_pretrained(folder).peft_type in (PeftType.PROMPT_TUNING, PeftType.PREFIX_TUNING)


def load(model: PreTrainedModel, folder: Path, name: str = "default", trainable: bool = False) -> SoftPromptModel:
    """`model` with the saved prompt or prefix in `folder` as adapter `name`."""
    config = PeftConfig.from_pretrained(folder)
    config.inference_mode = not trainable
    policy = SoftPromptModel(model, config, name)
    policy.load_adapter(folder, name, is_trainable=trainable)
    return policy


def virtual_tokens(model: PreTrainedModel | PeftModel) -> int:
    """How many keys every attention layer of `model` now sees before those of the sequence.

    They are made here where they were not yet, so that none of the attention that follows is their own.
    """
    if not isinstance(model, SoftPromptModel) or model._adapters_disabled:
        return 0
    return model.pairs()[0].keys.shape[-2]
