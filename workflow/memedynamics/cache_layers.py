"""What continues a prefix's keys and values: layers that read them, keep what is added, or make room for more.

Each takes the place of one layer of a transformers `Cache`, full or sliding-window alike. None changes the prefix.
"""

import torch
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

KeysValues = tuple[torch.Tensor, torch.Tensor]


class Reading(CacheLayerMixin):
    """Shows the keys of the chosen prompts `rows` (N,), or of all, with the new ones behind, and keeps neither."""

    def __init__(self, layer: DynamicLayer, rows: torch.Tensor | None) -> None:
        super().__init__()
        self.layer, self.rows = layer, rows
        self.is_sliding = layer.is_sliding
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object) -> KeysValues:
        """The prompt's keys and values with the new ones behind."""
        past = self.layer.keys, self.layer.values
        keys, values = past if self.rows is None else (each[self.rows] for each in past)
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to prepare: the prompt's keys are there."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(keys the next `query_length` tokens see, place of the first of them)."""
        return self.layer.get_mask_sizes(query_length)

    def get_seq_length(self) -> int:
        """Tokens read so far."""
        return self.layer.get_seq_length()

    def get_max_length(self) -> int:
        """Longest reach; -1 where unlimited."""
        return self.layer.get_max_length()


class Keeping(Reading):
    """Reads like `Reading` and keeps the joined keys, so that they can become a longer prefix."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object) -> KeysValues:
        """As `Reading`, remembered."""
        self.keys, self.values = super().update(key_states, value_states)
        return self.keys, self.values

    def shifted(self, shift: torch.Tensor) -> DynamicLayer:
        """The kept keys as an ordinary layer, row n moved right by `shift[n]` places so that it ends in a real token.

        Sliding windows count places, so padding may lie before a row's tokens only.
        """
        length = self.keys.shape[-2]
        added = length - self.layer.keys.shape[-2]
        places = (torch.arange(length, device=shift.device) - shift[:, None]) % length
        index = places[:, None, :, None].expand_as(self.keys)
        window = self.layer.sliding_window - 1 if self.is_sliding else length
        layer = DynamicSlidingWindowLayer(self.layer.sliding_window) if self.is_sliding else DynamicLayer()
        layer.lazy_initialization(self.keys, self.values)
        layer.cumulative_length = self.get_seq_length() + added
        layer.keys = self.keys.gather(-2, index)[:, :, -window:]
        layer.values = self.values.gather(-2, index)[:, :, -window:]
        return layer


class Growing(CacheLayerMixin):
    """The chosen prompts' keys with room for `room` more tokens a row, written in place: decoding copies nothing."""

    def __init__(self, layer: DynamicLayer, rows: torch.Tensor, room: int) -> None:
        super().__init__()
        self.window = layer.sliding_window if layer.is_sliding else None
        self.is_sliding, self.is_initialized = layer.is_sliding, True
        self.seen, self.stored = layer.get_seq_length(), layer.keys.shape[-2]
        self.keys, self.values = self._with_room(layer.keys, rows, room), self._with_room(layer.values, rows, room)

    @staticmethod
    def _with_room(prompt: torch.Tensor, rows: torch.Tensor, room: int) -> torch.Tensor:
        _, heads, length, width = prompt.shape
        buffer = prompt.new_empty(len(rows), heads, length + room, width)
        buffer[:, :, :length] = prompt[rows]
        return buffer

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object) -> KeysValues:
        """All keys and values in reach of the window, the new ones behind."""
        added = key_states.shape[-2]
        visible, _ = self.get_mask_sizes(added)
        end = self.stored + added
        self.keys[:, :, self.stored : end] = key_states
        self.values[:, :, self.stored : end] = value_states
        self.stored, self.seen = end, self.seen + added
        return self.keys[:, :, end - visible : end], self.values[:, :, end - visible : end]

    def select(self, index: torch.Tensor) -> None:
        """Keep rows `index` only."""
        self.keys, self.values = self.keys[index], self.values[index]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to prepare: the room is there."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(keys the next `query_length` tokens see, place of the first of them)."""
        past = self.seen if self.window is None else min(self.seen, self.window - 1)
        return past + query_length, self.seen - past

    def get_seq_length(self) -> int:
        """Tokens read so far."""
        return self.seen

    def get_max_length(self) -> int:
        """Longest reach; -1 where unlimited."""
        return -1 if self.window is None else self.window
