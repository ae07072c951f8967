"""Decoding: one response to each row of a prefix, every token drawn from softmax(logits / temperature), untruncated.

At temperature 0 every token is the most likely one: the greedy path.
Only the picture token is never drawn, as in TRL's GRPO: a whole sequence with one more of it than pictures is refused.
Tokens are read off by inverse CDF from given uniform numbers. Keys are written in place behind the prompt's, and rows
that have ended leave the batch.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from transformers import Cache, PreTrainedModel

from memedynamics import vlm
from memedynamics.cache_layers import Growing
from memedynamics.prefix import Prefix

# Rows that have ended leave when they are this share of the batch: each time the others' keys are copied once.
# With responses half as long as the limit this takes a quarter off the time; more or less often makes little odds.
DROP = 0.25


class Response(NamedTuple):
    """One drawn response."""

    token_ids: list[int]  # its end token included
    finish_reason: str  # stop, or length where no end token was drawn
    logp: float  # Σ log π(token | before) in nat, at temperature 1 whatever it was drawn at


@torch.inference_mode()
def respond(
    model: PreTrainedModel, prefix: Prefix, noise: np.ndarray, ends: Collection[int], temperature: float
) -> list[Response]:
    """One response to each of the prefix's N rows, of at most L tokens, drawn with `noise` (N, L).

    At temperature 0 nothing is drawn and of `noise` only the shape counts.
    """
    count, length = noise.shape
    device = prefix.rows.device
    uniform, stop = torch.from_numpy(noise).to(device), torch.tensor(sorted(ends), device=device)
    picture = torch.tensor([vlm.picture_token_id(model)], device=device)
    tokens = torch.full((count, length), -1, device=device)
    logp = torch.zeros(count, length, dtype=torch.float64, device=device)
    decoding = _Decoding(model, prefix, length)
    for position in range(length):
        logits = vlm.project(model, decoding.hidden)
        possible = logits.index_fill(-1, picture, -torch.inf)
        number = uniform[decoding.rows, position]
        drawn = pick(possible / temperature, number) if temperature else possible.argmax(-1)
        tokens[decoding.rows, position] = drawn
        logp[decoding.rows, position] = logits.log_softmax(-1).gather(1, drawn[:, None])[:, 0].double()
        decoding.end(torch.isin(drawn, stop))
        if position + 1 == length or not decoding.feed(drawn):
            break
    return _responses(tokens, logp, stop)


def pick(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The token (N,) at which the CDF of softmax(logits) (N, V), in float64, first exceeds `uniform` (N,).

    A token of probability zero is never picked.
    """
    p = logits.double().softmax(-1)
    # Parallel sums need not rise: the running maximum does, and rises at tokens of positive probability only.
    cdf = torch.where(p > 0, p.cumsum(-1), 0.0).cummax(-1).values
    return torch.searchsorted(cdf, (uniform * cdf[:, -1])[:, None], right=True)[:, 0]


class _Decoding:
    """The rows still being decoded, and the state that predicts their next token."""

    def __init__(self, model: PreTrainedModel, prefix: Prefix, room: int) -> None:
        self.model, self.prefix, self.fed = model, prefix, 0
        self.hidden = prefix.last_hidden
        self.rows = torch.arange(len(prefix.rows), device=prefix.rows.device)
        self.live = torch.ones_like(self.rows, dtype=torch.bool)
        self.layers = [Growing(layer, prefix.rows, room) for layer in prefix.cache.layers]

    def end(self, ended: torch.Tensor) -> None:
        """Mark the rows that have drawn an end token."""
        self.live &= ~ended

    def feed(self, drawn: torch.Tensor) -> bool:
        """Read the tokens (N,) just drawn; False when no row goes on."""
        going = int(self.live.sum())
        if not going:
            return False
        if going <= (1 - DROP) * len(self.live):
            drawn = self._drop_ended(drawn)
        mask = self.prefix.attention_mask
        out = vlm.hidden_states(
            self.model,
            input_ids=drawn[:, None],
            attention_mask=torch.cat([mask, mask.new_ones(len(mask), self.fed + 1)], dim=1),
            position_ids=self.prefix.positions(self.fed, 1),
            past_key_values=Cache(layers=self.layers),
            use_cache=True,
        )
        self.hidden, self.fed = out.last_hidden_state[:, -1], self.fed + 1
        return True

    def _drop_ended(self, drawn: torch.Tensor) -> torch.Tensor:
        index = self.live.nonzero()[:, 0]
        for layer in self.layers:
            layer.select(index)
        self.prefix, self.rows, self.live = self.prefix.select(index), self.rows[index], self.live[index]
        return drawn[index]


def _responses(tokens: torch.Tensor, logp: torch.Tensor, stop: torch.Tensor) -> list[Response]:
    ended = torch.isin(tokens, stop)
    stops = ended.any(1)
    lengths = torch.where(stops, ended.int().argmax(1) + 1, tokens.shape[1])
    found = zip(tokens.tolist(), logp.tolist(), lengths.tolist(), stops.tolist(), strict=True)
    return [Response(ids[:n], "stop" if stopped else "length", sum(logps[:n])) for ids, logps, n, stopped in found]
