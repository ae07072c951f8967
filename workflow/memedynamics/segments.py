"""What each token of a prompt belongs to, and where on the picture a picture's tokens lie.

1. system is all of the chat template before the user's words, the picture's delimiters included; image the tokens
   that hold picture features and no others; question the user's words but for the caption; header the template
   behind them, up to the response.
2. A token that holds characters of two segments belongs to the one with more of them, at a tie to the later one:
   a space goes with its word.
3. Cells number a 4×4 grid over the picture row by row. A token lies in the cell of its own centre. A family that cuts
   pictures into tiles shows the whole picture once more, small: those tokens have cells too.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import ProcessorMixin

from memedynamics import vlm
from memedynamics.errors import InputError
from memedynamics.prompts import Prompt, user_text

SEGMENTS = ("system", "image", "question", "caption", "header")
SYSTEM, IMAGE, QUESTION, CAPTION, HEADER = range(5)
NONE = -1  # padding among segments; among cells all but picture tokens
SIDE = 4  # the picture's cells are SIDE × SIDE

_TILE = re.compile(r"<row_(\d+)_col_(\d+)>")


class Part(NamedTuple):
    """A stretch of the user's message."""

    segment: int  # QUESTION or CAPTION
    text: str


class Placed(NamedTuple):
    """Of a left-padded batch, each (B, T) int8."""

    segment: np.ndarray  # index into SEGMENTS, NONE in padding
    cell: np.ndarray  # 0 … 15, NONE outside the picture


def parts(prompt: Prompt, question: str, text: str) -> list[Part]:
    """The message about a meme with caption `text` in stretches; joined they are what `user_text` gives."""
    caption = user_text(prompt.model_copy(update={"user": "{text}"}), question, text)
    words = prompt.user.replace("{question}", prompt.questions[question]).split("{text}")
    joined = [Part(QUESTION, words[0])]
    for stretch in words[1:]:
        joined += [Part(CAPTION, caption), Part(QUESTION, stretch)]
    return joined


def place(inputs: Mapping[str, torch.Tensor], processor: ProcessorMixin, memes: Sequence[Sequence[Part]]) -> Placed:
    """Segment and cell of every token of a batch as `vlm.encode` gives it; `memes`: the parts of each prompt."""
    ids, masks = (inputs[name].cpu().numpy() for name in ("input_ids", "attention_mask"))
    grids = inputs.get("image_grid_thw")
    segment, cell = (np.full(ids.shape, NONE, np.int8) for _ in range(2))
    for row, (mask, meme) in enumerate(zip(masks.astype(bool), memes, strict=True)):
        segment[row, mask] = segments(ids[row, mask], processor, meme)
        cell[row, mask] = cells(ids[row, mask], processor, None if grids is None else grids[row].tolist())
    return Placed(segment, cell)


def segments(input_ids: np.ndarray, processor: ProcessorMixin, meme: Sequence[Part]) -> np.ndarray:
    """The segment (index into SEGMENTS) of each of a prompt's tokens (T,), padding left out.

    Raises InputError where the prompt does not end as its text without the picture does.
    """
    content = "".join(part.text for part in meme)
    text = vlm.render(processor, content)
    start = text.rfind(content.strip())
    if start < 0:
        raise InputError("base_model: its chat template changes the user's words; tokens have no known segment")
    encoded = processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    # What stands for the picture before `start` grows in the processor; behind it the tokens are the same.
    behind = sum(end > start for _, end in encoded.offset_mapping)
    if encoded.input_ids[-behind:] != input_ids[-behind:].tolist():
        raise InputError("base_model: its processor changes the text behind the picture; tokens have no known segment")
    characters = _characters(text, start, meme)
    found = np.full(len(input_ids), SYSTEM, np.int8)
    found[-behind:] = [_segment(characters, *offsets) for offsets in encoded.offset_mapping[-behind:]]
    found[input_ids == picture_token(processor)] = IMAGE
    return found


def _characters(text: str, start: int, meme: Sequence[Part]) -> np.ndarray:
    """The segment of every character of the prompt `text` whose user's words start at `start`, stripped."""
    words = np.concatenate([np.full(len(part.text), part.segment) for part in meme])
    content = "".join(part.text for part in meme)
    first = len(content) - len(content.lstrip())
    words = words[first : first + len(content.strip())]
    behind = len(text) - start - len(words)
    return np.concatenate([np.full(start, SYSTEM), words, np.full(behind, HEADER)])


def _segment(characters: np.ndarray, start: int, end: int) -> int:
    held = characters[start : max(end, start + 1)]
    counts = np.bincount(held)
    return int(next(segment for segment in held[::-1] if counts[segment] == counts.max()))


def picture_token(processor: ProcessorMixin) -> int:
    """The token that holds picture features."""
    # Gemma's processor names the picture's opening delimiter instead.
    return getattr(processor.tokenizer, "image_token_id", None) or processor.image_token_id


def cells(input_ids: np.ndarray, processor: ProcessorMixin, grid: Sequence[int] | None = None) -> np.ndarray:
    """The cell of each of a prompt's tokens (T,), padding left out; NONE for tokens outside the picture.

    `grid`: the row of `image_grid_thw` where the family has one; else every tile's tokens are a square.
    """
    found = np.full(len(input_ids), NONE, np.int8)
    tiles = _tiles(input_ids, processor)
    rows, columns = (1 + max((tile[axis] for _, tile in tiles if tile), default=0) for axis in (0, 1))
    for positions, tile in tiles:
        height, width = _grid(len(positions), processor, grid)
        down, across = (axis + 0.5 for axis in np.divmod(np.arange(len(positions)), width))
        down, across = down / height, across / width
        if tile:
            down, across = (tile[0] + down) / rows, (tile[1] + across) / columns
        found[positions] = (down * SIDE).astype(int) * SIDE + (across * SIDE).astype(int)
    return found


def _tiles(input_ids: np.ndarray, processor: ProcessorMixin) -> list[tuple[np.ndarray, tuple[int, int] | None]]:
    """Each run of picture tokens, with its tile's row and column; None where it shows the whole picture."""
    positions = np.flatnonzero(input_ids == picture_token(processor))
    runs = np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1) if len(positions) else []
    before = [processor.tokenizer.decode(int(input_ids[max(run[0] - 1, 0)])) for run in runs]
    named = [_TILE.search(text) for text in before]
    return [(run, (int(m[1]) - 1, int(m[2]) - 1) if m else None) for run, m in zip(runs, named, strict=True)]


def _grid(count: int, processor: ProcessorMixin, grid: Sequence[int] | None) -> tuple[int, int]:
    """Height and width, in tokens, of a tile of `count` tokens."""
    if grid is not None:
        merge = processor.image_processor.merge_size
        height, width = grid[-2] // merge, grid[-1] // merge
    else:
        height = width = math.isqrt(count)
    if height * width != count:
        raise InputError(
            f"base_model: {count} picture tokens are no grid of {height} × {width}; their cells are unknown"
        )
    return height, width
