"""Which features the tokens in front of a decision make up.

1. Whole groups: system, image, question, caption and header of the prompt (`segments`), rationale and format tags of
   the response up to its answer. Every token is in exactly one of them, and in `all`.
2. Within them: `cell_0` … `cell_15` of the picture's 4×4 grid, row by row, and `word:…` for each word of the caption,
   in lower case and without the punctuation around it, all its occurrences in one.
3. A response without an answer block ends in its forced header, whose tokens are format.
"""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from memedynamics.forcing import Text
from memedynamics.segments import CAPTION, SEGMENTS, SIDE

ALL = "all"
WHOLE = (*SEGMENTS, "rationale", "format")


def response_kinds(text: Text) -> list[str]:
    """rationale or format for each of the tokens `text.fed[: text.decision]`."""
    own = text.spans[:-1] if text.spans[-1:] == ("end",) else text.spans
    kinds = ["format" if span == "format" else "rationale" for span in own[: text.decision]]
    return kinds + ["format"] * (text.decision - len(kinds))


def groups(
    segment: np.ndarray, cell: np.ndarray, ids: np.ndarray, text: Text, tokenizer: PreTrainedTokenizerBase
) -> dict[str, np.ndarray]:
    """Positions of each group of one text whose prompt has `segment`, `cell` and token `ids` (T,), padding included.

    The response's first token has position T. Groups without tokens are left out.
    """
    kinds, behind = np.array(response_kinds(text), str), len(segment)
    found = {name: np.flatnonzero(segment == place) for place, name in enumerate(SEGMENTS)}
    found |= {kind: behind + np.flatnonzero(kinds == kind) for kind in ("rationale", "format")}
    found[ALL] = np.concatenate([found[name] for name in WHOLE])
    found |= {f"cell_{number}": np.flatnonzero(cell == number) for number in range(SIDE * SIDE)}
    caption = np.flatnonzero(segment == CAPTION)
    of_token = words(ids[caption].tolist(), tokenizer)
    found |= {f"word:{word}": caption[[w == word for w in of_token]] for word in sorted(set(of_token) - {""})}
    return {name: positions for name, positions in found.items() if len(positions)}


def words(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The word each of a text's tokens ends in, lower case, without punctuation around it; "" for punctuation alone."""
    texts = [tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False) for end in range(1, len(ids) + 1)]
    whole = texts[-1].split() if texts else []
    return [_bare(whole[max(0, min(len(text.split()), len(whole)) - 1)]) if whole else "" for text in texts]


def _bare(word: str) -> str:
    letters = [place for place, letter in enumerate(word) if letter.isalnum()]
    return word[letters[0] : letters[-1] + 1].casefold() if letters else ""
