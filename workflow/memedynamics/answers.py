"""Where a response answers, and how likely the answer yes is there.

`p_hateful` = P(Yes) / (P(Yes) + P(No)) right after the response's own text up to its first `<answer>`; a response
without an answer block gets a canonical header appended and counts as forced. P of a label is the probability that
the response goes on with one of its spellings: case and leading space vary, every token of a spelling counts.
"""

import functools
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from memedynamics import vlm
from memedynamics.prefix import Prefix, extend, grow
from memedynamics.prompts import Prompt

OPENING = "<answer>"


class Context(NamedTuple):
    """What the model has read when it decides."""

    tokens: list[int]  # of the response, and of the header where forced
    forced: bool  # the header is not the response's own


class Decision(NamedTuple):
    """The answer of N responses, each (N,) float64."""

    p_hateful: torch.Tensor  # P(Yes) / (P(Yes) + P(No))
    label_mass: torch.Tensor  # P(Yes) + P(No)


class Labels:
    """The spellings of yes and no in a tokenizer's tokens.

    `spellings`: every spelling of either; `is_yes` (S,) says which are yes. `tails`: the token sequences to feed at the
    decision position so that all tokens of all spellings get predicted; empty where every spelling is one token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> None:
        yes, no = (_spellings(tokenizer, prompt.labels[key]) for key in ("yes", "no"))
        self.spellings = [*yes, *no]
        self.is_yes = torch.tensor([True] * len(yes) + [False] * len(no))
        stems = {spelling[:-1] for spelling in self.spellings if len(spelling) > 1}
        self.tails = sorted(s for s in stems if not any(s != other and s == other[: len(s)] for other in stems))


def _spellings(tokenizer: PreTrainedTokenizerBase, label: str) -> list[tuple[int, ...]]:
    variants = {space + word for space in ("", " ") for word in (label, label.lower(), label.upper(), label.title())}
    opening = _encode(tokenizer, OPENING)
    found = set()
    for variant in variants:
        # In place, since some tokenizers treat the start of a text apart; alone where the tag would swallow a letter.
        joined = _encode(tokenizer, OPENING + variant)
        inside = joined[: len(opening)] == opening
        found.add(tuple(joined[len(opening) :] if inside else _encode(tokenizer, variant)))
    return sorted(found)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def decide(model: PreTrainedModel, prefix: Prefix, contexts: Sequence[Sequence[int]], labels: Labels) -> Decision:
    """The decisions of N responses after `contexts` (tokens of each), teacher-forced behind the prefix's N rows."""
    tokens, mask = padded(contexts)
    if labels.tails:
        reached = grow(model, prefix, tokens, mask)
        return decision(vlm.project(model, reached.last_hidden), labels, remainders(model, reached, labels))
    states = torch.cat([prefix.last_hidden[:, None], extend(model, prefix, tokens, mask)], dim=1)
    row = torch.arange(len(contexts), device=states.device)
    return decision(vlm.project(model, states[row, mask.sum(-1).to(row)]), labels)


def decision(logits: torch.Tensor, labels: Labels, remainder: torch.Tensor | None = None) -> Decision:
    """The decisions that logits (N, V) at the decision position give.

    `remainder` (N, S): log-probability of each spelling's tokens after its first (`remainders`); needed where
    `labels.tails` is not empty.
    """
    if labels.tails and remainder is None:
        raise ValueError("labels of several tokens need the log-probabilities of their later tokens")
    first = torch.tensor([spelling[0] for spelling in labels.spellings], device=logits.device)
    logp = logits.double().log_softmax(-1)[:, first]
    logp = logp if remainder is None else logp + remainder
    is_yes = labels.is_yes.to(logits.device)
    yes, no = logp[:, is_yes].logsumexp(-1), logp[:, ~is_yes].logsumexp(-1)
    return Decision(torch.sigmoid(yes - no), torch.logaddexp(yes, no).exp())


def remainders(model: PreTrainedModel, reached: Prefix, labels: Labels) -> torch.Tensor:
    """log P(later tokens | first token) of each spelling, (N, S) float64, at a prefix that ends at the decision.

    0 for spellings of one token.
    """
    count = len(reached.rows)
    hidden = [extend(model, reached, *_for_all(tail, count)) for tail in labels.tails]
    # Neighbours share a stem; more of these would be much to hold where the vocabulary is large.
    logp = functools.lru_cache(2)(lambda tail, at: vlm.project(model, hidden[tail][:, at]).double().log_softmax(-1))
    total = torch.zeros(count, len(labels.spellings), dtype=torch.float64, device=reached.rows.device)
    for column, spelling in enumerate(labels.spellings):
        stem = spelling[:-1]
        for at, token in enumerate(spelling[1:]):
            tail = next(n for n, tail in enumerate(labels.tails) if tail[: len(stem)] == stem)
            total[:, column] += logp(tail, at)[:, token]
    return total


def _for_all(tail: tuple[int, ...], count: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.tensor([tail]).expand(count, -1)
    return tokens, torch.ones_like(tokens)


def padded(sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens, mask), both (N, R) long, R ≥ 1: sequences padded on the right."""
    width = max(1, *map(len, sequences))
    tokens = torch.tensor([[*sequence, *[0] * (width - len(sequence))] for sequence in sequences])
    mask = torch.tensor([[1] * len(sequence) + [0] * (width - len(sequence)) for sequence in sequences])
    return tokens, mask


def context(
    token_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, prompt: Prompt, ends: Collection[int]
) -> Context:
    """The tokens of a response up to its answer, or all but its end token with the forced header behind."""
    own = list(token_ids[:-1] if len(token_ids) and token_ids[-1] in ends else token_ids)
    position = decision_position(own, tokenizer, prompt)
    if position is not None:
        return Context(own[:position], False)
    text = tokenizer.decode(own, clean_up_tokenization_spaces=False)
    return Context(own + _encode(tokenizer, forced_header(text, prompt)), True)


def spans(
    token_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, prompt: Prompt, end_ids: Collection[int]
) -> list[str]:
    """What each token of a response belongs to: format (tags of the prompt's blocks), answer, rationale or end.

    A token that holds any character of a tag is format; rationale is all that lies in other blocks or in none.
    """
    pieces = _pieces(token_ids, tokenizer)
    kinds = _kinds("".join(pieces), prompt)
    found, start = [], 0
    for token, piece in zip(token_ids, pieces, strict=True):
        covered = kinds[start : start + len(piece)]
        start += len(piece)
        kind = "format" if "f" in covered else "answer" if covered[:1] == "a" else "rationale"
        found.append("end" if token in end_ids else kind)
    return found


def _kinds(text: str, prompt: Prompt) -> str:
    """One letter a character of `text`: f in a tag, a in the answer block, r elsewhere."""
    tags = [tag for block in prompt.blocks for tag in (f"<{block}>", f"</{block}>")]
    kinds, inside, last = [], "r", 0
    for tag in re.finditer("|".join(map(re.escape, tags)), text):
        kinds += [inside * (tag.start() - last), "f" * len(tag[0])]
        inside, last = "a" if tag[0] == OPENING else "r", tag.end()
    return "".join([*kinds, inside * (len(text) - last)])


def decision_position(token_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> int | None:
    """The index of the first answer token: the one after the tokens that spell the first `<answer>`.

    Equal to the number of tokens where the response stops there. None when there is no `<answer>`, or when its last
    token also holds other text than whitespace, so that no position lies between tag and answer.
    """
    pieces = _pieces(token_ids, tokenizer)
    before, opening, _ = "".join(pieces).partition(OPENING)
    if not opening:
        return None
    tag_ends, read = len(before) + len(OPENING), 0
    for index, piece in enumerate(pieces):
        read += len(piece)
        if read >= tag_ends:
            return None if piece[len(piece) - (read - tag_ends) :].strip() else index + 1


def forced_header(text: str, prompt: Prompt) -> str:
    """What to append to a response without answer block: the closing tag of an open block, then `<answer>`.

    A tag that `text` was cut in is completed.
    """
    last = {block: (text.rfind(f"<{block}>"), text.rfind(f"</{block}>")) for block in prompt.blocks}
    unclosed = [block for block, (opened, closed) in last.items() if opened > closed]
    header = f"</{max(unclosed, key=last.get)}>{OPENING}" if unclosed else OPENING
    cut = max(n for n in range(len(header)) if text.endswith(header[:n]))
    return header[cut:]


def _pieces(token_ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [_piece(tokenizer, int(token)) for token in token_ids]


@functools.lru_cache(2**18)
def _piece(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return tokenizer.decode([token], clean_up_tokenization_spaces=False)
