"""Token ids as text that a page can colour token by token.

A character may be spread over several tokens: all but the last of them have no text of their own, so that no part of a
character is ever shown. Lengths are in UTF-16 code units, which is how JavaScript counts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from memedynamics.errors import InputError


class Cut(NamedTuple):
    """A response's text, special tokens included, and how much of it each token is."""

    text: str
    lengths: list[int]  # one a token, 0 within a character that a later token completes; sum: the text's length


def load(model: Path) -> Tokenizer:
    """The tokenizer of the model folder; raises InputError where it has none that the library `tokenizers` reads."""
    file = model / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{file}: no tokenizer can be read ({error}); delete {model} and run again") from None


def cut(token_ids: Sequence[int], tokenizer: Tokenizer) -> Cut:
    """The text of `token_ids` and each token's share of it; bytes that are no text show as U+FFFD."""
    stream = DecodeStream(skip_special_tokens=False)
    pieces = [stream.step(tokenizer, token) or "" for token in token_ids]
    if token_ids and not pieces[-1]:  # cut within a character
        whole, given = "".join(pieces), tokenizer.decode(list(token_ids), skip_special_tokens=False)
        pieces[-1] = given[len(whole) :] if given.startswith(whole) else "\ufffd"
    return Cut("".join(pieces), [len(piece.encode("utf-16-le")) // 2 for piece in pieces])
