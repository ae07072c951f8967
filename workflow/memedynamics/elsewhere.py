"""Responses that another engine draws: what it is asked, what it returns, and the rows of schema `drawn` they become.

An engine returns tokens, or text alone. Log-probabilities and the probability of the answer are always the study's own
model's, teacher-forced behind shared prompts, so that they mean the same whatever drew the response; and they show
whether it is that model the engine draws from (module `draws`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import tee
from typing import Literal, NamedTuple

import polars as pl
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase

from memedynamics import answers, batching, forcing, vlm
from memedynamics.decoding import Response
from memedynamics.draws import Draws
from memedynamics.forced_logps import unpadded
from memedynamics.images import open_image
from memedynamics.noise import seed_of
from memedynamics.prompts import user_text
from memedynamics.sampling import Batch, Sampler, named, written

# Response positions whose logits are held at once.
CHUNK = 256
# The bias of the picture token's logit: engines take no minus infinity.
NEVER = -100.0


class Asked(NamedTuple):
    """One meme: its prompt, as words and as tokens, and the seed of each response to it."""

    name: str  # dataset/split/id
    content: str
    image: Image.Image
    tokens: list[int]
    seeds: list[int]


class Returned(NamedTuple):
    """One response, its end token included."""

    token_ids: list[int]
    finish_reason: Literal["stop", "length"]
    tokens: Literal["drawn", "text", "recut"] = "drawn"  # how they are known, as in schema `drawn`
    logps: Sequence[float] = ()  # log π of each token at temperature 1, where the engine gives it


# From memes by batch to the responses of each batch, meme by meme; may read ahead.
Engine = Callable[[Iterable[list[Asked]]], Iterator[list[Returned]]]


def answered(
    sampler: Sampler, questions: Mapping[str, str], engine: Engine, batches: Iterable[Batch], draws: Draws
) -> Iterator[tuple[Batch, pl.DataFrame]]:
    """Each batch with its rows. Raises InputError where the engine draws from another model than `sampler`'s."""
    count, batches = sampler.sampling.num_samples, list(batches)
    asked, kept = tee(ask(sampler, batch, questions) for batch in batches)
    for batch, prompts, returned in zip(batches, kept, engine(asked), strict=True):
        texts = [one.tokens for one in returned if one.tokens != "drawn"]
        draws.read(len(texts), texts.count("recut"))
        of_meme = [returned[n * count : (n + 1) * count] for n in range(len(prompts))]
        memes = list(zip(prompts, of_meme, strict=True))
        found = batching.halving(lambda some: [forced(sampler, some, draws)], memes)
        frames, measured = zip(*found, strict=True)
        draws.add(sum(measured))
        yield batch, named(batch.memes, count, batch.fraction).hstack(pl.concat(frames))


def ask(sampler: Sampler, batch: Batch, questions: Mapping[str, str]) -> list[Asked]:
    """What an engine is asked for a batch."""
    names = batch.memes.select("dataset", "split", "id").rows()
    contents = [user_text(sampler.prompt, questions[names[0][0]], text) for text in batch.memes["text"]]
    images = [open_image(path) for path in batch.memes["image"]]
    tokens = unpadded(**vlm.encode(sampler.processor, contents, images))
    samples, seed = range(sampler.sampling.num_samples), sampler.sampling.seed
    return [
        Asked("/".join(name), content, image, ids, [seed_of(seed, *name, n) for n in samples])
        for name, content, image, ids in zip(names, contents, images, tokens, strict=True)
    ]


def from_tokens(token_ids: Sequence[int], ends: Collection[int], logps: Sequence[float] = ()) -> Returned:
    """The response of an engine that gives its tokens."""
    ids = list(token_ids)
    return Returned(ids, "stop" if ids[-1] in ends else "length", logps=logps)


def from_text(
    text: str, stopped: bool, count: int, tokenizer: PreTrainedTokenizerBase, ends: Collection[int]
) -> Returned:
    """The response of an engine that gives its text and the `count` of its tokens, the end token among them.

    The tokens are those that the text is cut into. A text can be drawn in other pieces, and special tokens may be
    missing from it: `recut` where their number shows it; where it does not, that is no proof.
    """
    ids = tokenizer(text, add_special_tokens=False).input_ids
    if (stopped or not ids) and not (ids and ids[-1] in ends):
        ids = [*ids, tokenizer.eos_token_id]
    return Returned(ids, "stop" if stopped else "length", "text" if len(ids) == count else "recut")


@torch.inference_mode()
def forced(
    sampler: Sampler, memes: Sequence[tuple[Asked, list[Returned]]], draws: Draws
) -> tuple[pl.DataFrame, torch.Tensor]:
    """What schema `drawn` says of responses, by the study's own model; and what `draws` is to add."""
    model, processor = sampler.model, sampler.processor
    prompts = [asked for asked, _ in memes]
    inputs = vlm.encode(processor, [asked.content for asked in prompts], [asked.image for asked in prompts])
    owners, given = zip(*((n, one) for n, (_, responses) in enumerate(memes) for one in responses), strict=True)
    texts = [
        forcing.read(n, one.token_ids, processor.tokenizer, sampler.prompt, sampler.ends)
        for n, one in zip(owners, given, strict=True)
    ]
    states = forcing.shared(model, inputs, texts, sampler.labels)
    logps, measured = _logps(sampler, states.response, texts, [one.tokens != "recut" for one in given], draws)
    told = [(own, torch.tensor(one.logps)) for own, one in zip(logps, given, strict=True) if one.logps]
    if told:
        draws.compare(*map(torch.cat, zip(*told, strict=True)))
    found = answers.decision(vlm.project(model, states.decision), sampler.labels, states.remainder)
    sums = [own.sum().item() for own in logps]
    responses = [Response(one.token_ids, one.finish_reason, logp) for one, logp in zip(given, sums, strict=True)]
    frame = written(responses, sampler).with_columns(
        tokens=pl.Series([one.tokens for one in given]),
        p_hateful=pl.Series(found.p_hateful.cpu().numpy()),
        label_mass=pl.Series(found.label_mass.cpu().numpy()),
        forced=pl.Series([text.forced for text in texts]),
    )
    return frame, measured


def _logps(
    sampler: Sampler, states: torch.Tensor, texts: Sequence[forcing.Text], known: Sequence[bool], draws: Draws
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """log π of each text's tokens, at temperature 1; and what `draws` measures of the texts that are `known`."""
    tokens = torch.tensor([token for text in texts for token in text.tokens], device=states.device)
    lengths = torch.tensor([len(text.tokens) for text in texts])
    heard = torch.tensor(known).repeat_interleave(lengths).to(states.device)
    logps, measured = torch.empty(len(tokens), dtype=torch.float64), 0
    for start in range(0, len(tokens), CHUNK):
        part = slice(start, start + CHUNK)
        logits = vlm.project(sampler.model, states[part])
        logps[part] = logits.log_softmax(-1).gather(1, tokens[part, None])[:, 0].double().cpu()
        measured = measured + draws.measure(logits[heard[part]], tokens[part][heard[part]])
    return list(logps.split(lengths.tolist())), measured
