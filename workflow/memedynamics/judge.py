"""A judge reads two responses in both orders and says with which probability it would answer "1".

P("1") is read off the next-token distribution after the prompt, as RLAIF does (Lee et al. 2309.00267, §2.1), not
sampled: its share of P("1") + P("2"), each summed over the tokens that spell the number, with or without a space.

1. A judge prefers a place whatever stands there (Wang et al. 2305.17926; Zheng et al. 2306.05685): the preference is
   the mean over both orders, P(one is better) = ½ + (P("1" | one first) − P("1" | two first))/2, so that swapping the
   two turns it into its complement, and a judge that always says "1" prefers neither.
2. `label_mass` = P("1") + P("2"): where it is small the judge would have said something else, and the share of what is
   left says little.
3. All that the orders and pairs of a meme begin with, the picture included, runs through the model once.
"""

import os.path
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch
from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from memedynamics import prefix, vlm
from memedynamics.answers import Decision, Labels, decide
from memedynamics.batching import halving
from memedynamics.errors import InputError
from memedynamics.images import open_image
from memedynamics.judge_plan import Pair


class Numbers(Labels):
    """The tokens that say "1" and those that say "2", in place of yes and no."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, judge: str) -> None:
        """Raises InputError naming `judge` where one of the numbers is no single token."""
        vocabulary = tokenizer.get_vocab()
        # Ġ and ▁ are how tokenizers write a leading space.
        found = {n: sorted(i for token, i in vocabulary.items() if token.lstrip("Ġ▁ ") == n) for n in ("1", "2")}
        for number, tokens in found.items():
            if not tokens:
                raise InputError(
                    f"judge {judge}: its tokenizer has no single token for {number!r}, whose probability is the "
                    "judgement; name another model in judge.model"
                )
        self.spellings = [(token,) for tokens in found.values() for token in tokens]
        self.is_yes = torch.tensor([True] * len(found["1"]) + [False] * len(found["2"]))
        self.tails = []


def judgements(
    model: PreTrainedModel, processor: ProcessorMixin, numbers: Numbers, pairs: Sequence[Pair]
) -> pl.DataFrame:
    """What the judge `model` says of `pairs`: one row each, in order (schema `judgements`).

    Where memory runs out, half the pairs at a time.
    """
    return pl.DataFrame(halving(lambda some: _judged(model, processor, numbers, some), pairs))


def _judged(
    model: PreTrainedModel, processor: ProcessorMixin, numbers: Numbers, pairs: Sequence[Pair]
) -> list[dict[str, object]]:
    # A pair that was drawn may be the one that the labels chose.
    index: dict[tuple[str, str], int] = {}
    asked = [[index.setdefault((pair.image, text), len(index)) for text in (pair.ab, pair.ba)] for pair in pairs]
    found = verdicts(model, processor, list(index), numbers)
    p_one, mass = (values.cpu()[torch.tensor(asked)].tolist() for values in found)
    return [pair.row | judgement(*p, *m) for pair, p, m in zip(pairs, p_one, mass, strict=True)]


def judgement(p_one_ab: float, p_one_ba: float, label_mass_ab: float, label_mass_ba: float) -> dict[str, float]:
    """One pair's judgement from P("1") of both orders: sample_one first (ab), sample_two first (ba)."""
    return {
        "p_first": 0.5 + (p_one_ab - p_one_ba) / 2,
        "p_one_ab": p_one_ab,
        "p_one_ba": p_one_ba,
        "label_mass_ab": label_mass_ab,
        "label_mass_ba": label_mass_ba,
    }


@torch.inference_mode()
def verdicts(
    model: PreTrainedModel, processor: ProcessorMixin, asked: Sequence[tuple[str, str]], numbers: Numbers
) -> Decision:
    """P("1") / (P("1") + P("2")) and P("1") + P("2"), (N,) each, after N prompts `asked`: (picture's path, words)."""
    images = list(dict.fromkeys(image for image, _ in asked))
    owner = [images.index(image) for image, _ in asked]
    tokens = [_tokens(processor, content) for _, content in asked]
    starts = [
        os.path.commonprefix([t for t, at in zip(tokens, owner, strict=True) if at == n]) for n in range(len(images))
    ]
    first = [owner.index(n) for n in range(len(images))]
    whole = vlm.encode(processor, [asked[n][1] for n in first], [open_image(Path(image)) for image in images])
    begun = cut_short(whole, [len(tokens[n]) - len(start) for n, start in zip(first, starts, strict=True)])
    past = prefix.prefill(model, begun).select(torch.tensor(owner))
    return decide(model, past, [t[len(starts[at]) :] for t, at in zip(tokens, owner, strict=True)], numbers)


def _tokens(processor: ProcessorMixin, content: str) -> list[int]:
    # The picture is one token here, of many that the processor makes of it: it lies in the part that is shared.
    return processor.tokenizer(vlm.render(processor, content), add_special_tokens=False).input_ids


def cut_short(inputs: BatchFeature, drop: Sequence[int]) -> BatchFeature:
    """Left-padded `inputs` of B prompts without the last `drop[b]` tokens of prompt b, left-padded again."""
    shape = inputs["input_ids"].shape
    shift = torch.tensor(drop)[:, None]
    places = torch.arange(shape[1]) - shift
    for name, value in inputs.items():
        if value.shape == shape:  # also token types
            moved = value.gather(1, places.clamp(min=0)).masked_fill(places < 0, 0)
            inputs[name] = moved[:, int(shift.min()) :]
    return inputs
