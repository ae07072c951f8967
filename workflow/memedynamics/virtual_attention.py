"""How attention sees keys and values that no sequence holds: those of virtual tokens, put before its own.

1. They stand before what the cache holds, for every token to see; the cache itself never holds them.
2. Masks get a column for each in front. Where there is none, a causal one is written out: kernels line its corner up
   with the first key.
3. Positions in a decoder's call are those of the tokens that are no padding: those of virtual tokens come before them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import Cache


class Pair(NamedTuple):
    """Keys and values of the virtual tokens in one layer: (1, heads, V, D) each."""

    keys: Tensor
    values: Tensor


class Joined:
    """What an attention layer takes for its cache: shows the virtual tokens before what the real one holds."""

    def __init__(self, cache: Cache | None, virtual: Pair) -> None:
        self.cache, self.virtual = cache, virtual

    def update(self, keys: Tensor, values: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Virtual, past and new keys and values; the virtual ones are kept nowhere."""
        if self.cache is not None:
            keys, values = self.cache.update(keys, values, *args, **kwargs)
        whole = zip(self.virtual, (keys, values), strict=True)
        return tuple(torch.cat([part.to(own.dtype).expand(len(own), -1, -1, -1), own], -2) for part, own in whole)


def attend(attention: nn.Module, args: tuple, kwargs: dict[str, object]) -> tuple[tuple, dict[str, object]]:
    """Let one attention layer see the virtual tokens that were handed to it."""
    virtual = kwargs.pop("virtual", None)
    if virtual is None:
        return args, kwargs
    states, cache = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0], kwargs.get("past_key_values")
    mask = kwargs.get("attention_mask")
    if mask is None and "flash" not in attention.config._attn_implementation:
        past = 0 if cache is None else cache.get_seq_length(attention.layer_idx)
        mask = _causal(states.shape[1], past, states.device)
    joined = Joined(cache, virtual)
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


def positions(kwargs: Mapping[str, object]) -> Tensor:
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
