"""Where a prompt's last token looks and how its answer is decided, on clean and on perturbed pictures.

1. The reference reads each clean prompt first: it fixes the sink tokens of every layer for all policies.
2. Every policy reads a perturbed prompt while its picture's features are remembered: one tower pass for all of them.
3. A picture keeps its size under every perturbation, so rows compare token by token.
4. Decisions are those of `looking_decisions`. Answering anew costs a whole decoding, so it is done at the end of
   training alone (the base at 0), and for the pictures of `redrawn` alone.
5. Heads are reduced to their mean and their maximum; the share without sinks is a ratio of means over heads, so that a
   head that spends everything on a sink counts for what it spends elsewhere.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from memedynamics import looking_tables, perturbations, row_measures, segments, vlm
from memedynamics.answers import Decision
from memedynamics.attention_rows import last_rows
from memedynamics.batching import halving
from memedynamics.looking_decisions import Decider
from memedynamics.looking_tables import Asked, Look
from memedynamics.perturbations import BLANK, CLEAN, NOISE, Key
from memedynamics.prefix import Prefix, prefill

GROUPS = len(segments.SEGMENTS)
SWAP = "swap"  # stands for either kind of swap until a meme's own is written


class Policy(NamedTuple):
    """A model to look through."""

    kind: str  # trained or random
    fraction: float
    label: str | None  # what `Looker.model` knows it by; None: the reference
    redraws: bool = False  # it answers anew on the pictures of `redrawn`


REFERENCE = Policy("trained", 0.0, None)


class Meme(NamedTuple):
    """One prompt, and what its picture is swapped for."""

    key: Key
    label: int
    parts: Sequence[segments.Part]
    image: Image.Image
    swap: tuple[str, Image.Image] | None  # natural_swap or other_image, and a picture in this one's size
    rationale: Sequence[int]  # answers.context of the base's sample 0
    kept: bool  # its single heads are written


@dataclass(frozen=True)
class Looker:
    """What the batches of a job share."""

    model: Callable[[str | None], PreTrainedModel]  # the model at a policy's label, ready to be called
    processor: ProcessorMixin
    decider: Decider
    noise: Sequence[int]  # σ of 255

    def look(self, memes: Sequence[Meme], policies: Sequence[Policy]) -> pl.DataFrame:
        """Table `extract_attention` of the memes under `policies`. Where memory runs out, half the memes at a time."""
        found = halving(lambda some: list(self._look(some, policies)), memes)
        return pl.concat(found, how="diagonal").drop("kept")

    @torch.inference_mode()
    def _look(self, memes: Sequence[Meme], policies: Sequence[Policy]) -> Iterator[pl.DataFrame]:
        clean: dict[Policy, Tensor] = {}
        with ExitStack() as pictures:
            for model in {self.model(policy.label) for policy in (REFERENCE, *policies)}:
                pictures.enter_context(vlm.remembered_pictures(model))
            for name in (*perturbations.names(self.noise), SWAP):
                inputs = self._inputs(memes, name)
                if name == CLEAN:
                    place = segments.place(inputs, self.processor, [meme.parts for meme in memes])
                    rows, _ = self._read(REFERENCE, inputs)
                    member, sink = _membership(place, rows.device), row_measures.sinks(rows)
                for policy in policies:
                    rows, past = self._read(policy, inputs)
                    look = measured(rows, clean.setdefault(policy, rows), member, sink, heads=name == CLEAN)
                    asked = Asked(policy.kind, policy.fraction, [_own(meme, name) for meme in memes])
                    yield looking_tables.looks(look, place, memes, asked)
                    made = self._decide(policy, past, memes, policy.redraws and name in redrawn(self.noise))
                    yield looking_tables.decisions(made, memes, asked)

    def _inputs(self, memes: Sequence[Meme], name: str) -> Mapping[str, Tensor]:
        contents = ["".join(part.text for part in meme.parts) for meme in memes]
        return vlm.encode(self.processor, contents, [_picture(meme, name) for meme in memes])

    def _read(self, policy: Policy, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Prefix]:
        """Rows (L, B, H, T) of each prompt's last token, and the prompts as a past."""
        model = self.model(policy.label)
        with last_rows(model) as rows:
            past = prefill(model, inputs)
        return torch.stack(rows), past

    def _decide(self, policy: Policy, past: Prefix, memes: Sequence[Meme], anew: bool) -> dict[str, Decision]:
        model = self.model(policy.label)
        found = self.decider.given(model, past, [meme.rationale for meme in memes])
        return found | self.decider.redrawn(model, past) if anew else found


def redrawn(noise: Sequence[int]) -> set[str]:
    """The pictures that policies answer anew: clean, the strongest `noise` (σ of 255), blank and swapped."""
    return {CLEAN, BLANK, SWAP, *(f"{NOISE}{sigma}" for sigma in sorted(noise)[-1:])}


def measured(rows: Tensor, clean: Tensor, member: Tensor, sink: Tensor, heads: bool) -> Look:
    """What `rows` (L, B, H, T) say, against the same policy's `clean` ones; `heads`: each head's shares too.

    `member` (B, T, S + 16): segments, then cells; `sink` (L, B, T).
    """
    shares = row_measures.shares(rows, member)
    tv, js = row_measures.total_variation(rows, clean), row_measures.jensen_shannon(rows, clean)
    mean = rows.mean(2, keepdim=True)
    found = Look(
        share=torch.stack([shares.mean(2), shares.amax(2)], 2),
        sinkless=row_measures.sinkless(mean, member[..., :GROUPS], sink)[:, :, 0],
        sink_share=(mean[:, :, 0] * sink).sum(-1),
        tv=torch.stack([tv.mean(2), tv.amax(2)], 2),
        js=torch.stack([js.mean(2), js.amax(2)], 2),
        heads=shares if heads else None,
    )
    return Look(*(None if value is None else value.cpu().numpy() for value in found))


def _membership(place: segments.Placed, device: torch.device) -> Tensor:
    segment, cell = (torch.from_numpy(codes).to(device) for codes in place)
    return torch.cat(
        [row_measures.membership(segment, GROUPS), row_measures.membership(cell, segments.SIDE**2)], dim=-1
    )


def _picture(meme: Meme, name: str) -> Image.Image:
    if name == SWAP:
        # A meme without a swap only fills its place in the batch.
        return meme.swap[1] if meme.swap else meme.image
    return perturbations.perturbed(meme.image, name, meme.key)


def _own(meme: Meme, name: str) -> str | None:
    """The perturbation's name for this meme; None where it has none."""
    return name if name != SWAP else meme.swap and meme.swap[0]
