"""A batch of prompts run through the model once, to be continued by any number of responses.

Prompts are left-padded, responses right-padded. A prefix is never changed: continuing it hands the model a cache
that reads the prompt's keys and values and keeps nothing of what is added, so the K responses of a prompt cost one
prefill, and the copies of its keys live for one layer at a time only.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import Cache, PreTrainedModel

from memedynamics import vlm
from memedynamics.cache_layers import Keeping, Reading


@dataclass(frozen=True)
class Prefix:
    """B prompts run through the model, as the common past of N rows (`prefill` gives N = B)."""

    cache: Cache  # keys and values of the B prompts
    rows: torch.Tensor  # (N,) which prompt each row continues
    last_hidden: torch.Tensor  # (N, d) last-layer state at the prompt's last token: predicts response token 0
    attention_mask: torch.Tensor  # (N, T) long, 0 where padded
    next_position: torch.Tensor  # (N,) rotary position of response token 0
    axes: int  # 3 where the rotary positions are (time, height, width), else 1

    def select(self, index: torch.Tensor) -> "Prefix":
        """The prefix of rows `index` (M,), in that order, repeats allowed; shares this one's cache."""
        index = index.to(self.rows.device)
        names = ("rows", "last_hidden", "attention_mask", "next_position")
        return dataclasses.replace(self, **{name: getattr(self, name)[index] for name in names})

    def repeat(self, k: int) -> "Prefix":
        """The prefix of N·k rows, row 0's k responses first; shares this one's cache."""
        index = torch.arange(len(self.rows), device=self.rows.device)
        return self.select(index.repeat_interleave(k))

    def positions(self, start: int, length: int) -> torch.Tensor:
        """Rotary positions of response tokens `start` … `start + length - 1`: (N, length), or (3, N, length)."""
        steps = torch.arange(start, start + length, device=self.next_position.device)
        positions = self.next_position[:, None] + steps
        return positions if self.axes == 1 else positions.expand(self.axes, -1, -1)


@torch.inference_mode()
def prefill(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> Prefix:
    """Run left-padded prompts with their pictures (as `vlm.encode` gives them) through the model once."""
    inputs = {name: _moved(value, model) for name, value in inputs.items()}
    mask = inputs["attention_mask"]
    rotary = _holder_of_rope_deltas(model)
    if rotary is None:
        # Models that place pictures on three axes work their positions out themselves; the others would count padding.
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    out = vlm.hidden_states(model, **inputs, use_cache=True)
    length = mask.sum(-1)
    return Prefix(
        cache=out.past_key_values,
        rows=torch.arange(len(mask), device=mask.device),
        # A copy: a slice would keep the states of all positions alive.
        last_hidden=out.last_hidden_state[:, -1].clone(),
        attention_mask=mask,
        next_position=length if rotary is None else length + rotary.rope_deltas.reshape(-1).to(length.device),
        axes=1 if rotary is None else 3,
    )


@torch.inference_mode()
def extend(model: PreTrainedModel, prefix: Prefix, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Last-layer states (N, R, d) of the responses `tokens` (N, R), right-padded with `mask` 0, after their prompts.

    State r predicts token r + 1; `prefix.last_hidden` predicts token 0. The prefix stays as it was.
    """
    return _continue(model, prefix, tokens, mask, Cache(layers=_layers(prefix, Reading)))


def predicting(prefix: Prefix, hidden: torch.Tensor) -> torch.Tensor:
    """The states (N, R, d) that predict response tokens 0 … R-1, from `extend`'s states (N, R, d)."""
    return torch.cat([prefix.last_hidden[:, None], hidden[:, :-1]], dim=1)


@torch.inference_mode()
def grow(model: PreTrainedModel, prefix: Prefix, tokens: torch.Tensor, mask: torch.Tensor) -> Prefix:
    """The prefix of N prompts each followed by its own `tokens` (N, R), right-padded with `mask` 0.

    Unlike `extend` it keeps all keys of all N rows, so it takes their memory.
    """
    cache = Cache(layers=_layers(prefix, Keeping))
    hidden = torch.cat([prefix.last_hidden[:, None], _continue(model, prefix, tokens, mask, cache)], dim=1)
    length = mask.to(prefix.rows).sum(-1)
    shift = mask.shape[1] - length
    joined = torch.cat([prefix.attention_mask, mask.to(prefix.attention_mask)], dim=1)
    places = (torch.arange(joined.shape[1], device=shift.device) - shift[:, None]) % joined.shape[1]
    row = torch.arange(len(length), device=length.device)
    return Prefix(
        cache=Cache(layers=[layer.shifted(shift) for layer in cache.layers]),
        rows=row,
        last_hidden=hidden[row, length],
        attention_mask=joined.gather(1, places),
        next_position=prefix.next_position + length,
        axes=prefix.axes,
    )


def _continue(
    model: PreTrainedModel, prefix: Prefix, tokens: torch.Tensor, mask: torch.Tensor, cache: Cache
) -> torch.Tensor:
    out = vlm.hidden_states(
        model,
        input_ids=tokens.to(prefix.rows.device),
        attention_mask=torch.cat([prefix.attention_mask, mask.to(prefix.attention_mask)], dim=1),
        position_ids=prefix.positions(0, tokens.shape[1]),
        past_key_values=cache,
        use_cache=True,
    )
    return out.last_hidden_state


def _layers(prefix: Prefix, kind: type[Reading]) -> list[Reading]:
    # Every prompt once and in order, as in a grown prefix: then its keys need no copy.
    in_order = torch.arange(prefix.cache.layers[0].keys.shape[0], device=prefix.rows.device)
    rows = None if torch.equal(prefix.rows, in_order) else prefix.rows
    return [kind(layer, rows) for layer in prefix.cache.layers]


def _moved(value: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    return value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)


def _holder_of_rope_deltas(model: PreTrainedModel) -> torch.nn.Module | None:
    return next((module for module in model.modules() if "rope_deltas" in vars(module)), None)
