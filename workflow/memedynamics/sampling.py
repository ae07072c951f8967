"""Responses drawn from a policy, with the probability of the answer: the rows of schema `drawn`.

Each prompt is prefilled once for its K responses. The noise comes from `memedynamics.noise`, so a response depends on
the policy, its prompt and its own name only, never on shards or order; batches are cut at fixed ids, since in
floating point the others in a batch show in the last digits.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from transformers import PreTrainedModel, ProcessorMixin

from memedynamics import answers, batching, vlm
from memedynamics.config import OwnSamples, Sampling
from memedynamics.decoding import Response, respond
from memedynamics.images import open_image
from memedynamics.milestones import label
from memedynamics.noise import uniforms
from memedynamics.prefix import Prefix, prefill
from memedynamics.probes import stratified
from memedynamics.prompts import Prompt, user_text


class Batch(NamedTuple):
    """Memes (schema `data`, one dataset) that are answered together; `key` names its part file."""

    key: str
    fraction: float
    memes: pl.DataFrame


class Sampler(NamedTuple):
    """What all batches of a job share."""

    model: PreTrainedModel
    processor: ProcessorMixin
    prompt: Prompt
    labels: answers.Labels
    ends: set[int]
    sampling: Sampling


def sampler(model: PreTrainedModel, processor: ProcessorMixin, prompt: Prompt, sampling: Sampling) -> Sampler:
    """A sampler of `model`."""
    labels, ends = answers.Labels(processor.tokenizer, prompt), vlm.end_token_ids(model, processor)
    return Sampler(model, processor, prompt, labels, ends, sampling)


def base_batches(memes: pl.DataFrame, batch_size: int, shard: str) -> list[Batch]:
    """The batches of one shard of a split, cut over the whole split."""
    return batching.shard(_cut(memes, batch_size, 0.0), shard)


def policy_batches(
    data: Sequence[pl.DataFrame], own: OwnSamples, sampling: Sampling, fractions: Sequence[float], in_domain: str
) -> list[Batch]:
    """What a policy answers at `fractions`, in their order: a fixed choice of val at each, and at 1 all of `own.final`.

    `data` are whole splits. The choice is stratified by label and the same for all runs of a study.
    """
    by_kind: dict[str, list[pl.DataFrame]] = {"val": [], "test": [], "out_of_domain": []}
    for memes in data:
        dataset, split = memes.select("dataset", "split").row(0)
        by_kind[split if dataset == in_domain else "out_of_domain"].append(memes)
    chosen = [_chosen(memes, own.milestones, sampling.seed) for memes in by_kind["val"]]
    final = [memes for kind, found in by_kind.items() for memes in (found if kind in own.final else [])]
    final = final if "val" in own.final else chosen + final
    return [
        batch
        for fraction in fractions
        for memes in (final if fraction == 1 else chosen)
        for batch in _cut(memes, sampling.batch_size, fraction)
    ]


def _chosen(memes: pl.DataFrame, size: int, seed: int) -> pl.DataFrame:
    return memes.join(stratified(memes, size, [seed, *_name(memes).encode()]), "id", "semi", maintain_order="left")


def _cut(memes: pl.DataFrame, batch_size: int, fraction: float) -> list[Batch]:
    batches = batching.cut(memes, batch_size)
    return [Batch(f"{label(fraction)}-{_name(part)}-{n:05d}", fraction, part) for n, part in enumerate(batches)]


def _name(memes: pl.DataFrame) -> str:
    return "-".join(memes.select("dataset", "split").row(0))


def answered(sampler: Sampler, batch: Batch, questions: Mapping[str, str]) -> pl.DataFrame:
    """The rows of `batch`, drawn in halves where memory runs out; `questions` by dataset."""
    question = questions[batch.memes["dataset"][0]]
    rows = list(range(len(batch.memes)))
    return pl.concat(batching.halving(lambda some: [draw(sampler, batch.memes[some], question, batch.fraction)], rows))


def draw(sampler: Sampler, memes: pl.DataFrame, question: str, fraction: float) -> pl.DataFrame:
    """`sampling.num_samples` responses to each of `memes` (schema `data`), as rows of schema `drawn`."""
    sampling, count = sampler.sampling, sampler.sampling.num_samples
    contents = [user_text(sampler.prompt, question, text) for text in memes["text"]]
    inputs = vlm.encode(sampler.processor, contents, [open_image(path) for path in memes["image"]])
    rows = named(memes, count, fraction)
    prefix = prefill(sampler.model, inputs).repeat(count)
    responses = respond(sampler.model, prefix, noise(rows, sampling), sampler.ends, sampling.temperature)
    rows = rows.hstack(written(responses, sampler)).hstack(decided(responses, prefix, sampler))
    return rows.with_columns(tokens=pl.lit("drawn"))


def named(memes: pl.DataFrame, count: int, fraction: float) -> pl.DataFrame:
    """The keys of `count` responses to each of `memes`, meme by meme."""
    rows = memes.select("dataset", "split", "id").select(pl.all().repeat_by(count).list.explode())
    return rows.with_columns(sample=pl.int_range(pl.len(), dtype=pl.Int16) % count, fraction=pl.lit(fraction))


def noise(rows: pl.DataFrame, sampling: Sampling) -> np.ndarray:
    """The uniform numbers (N, max_new_tokens) that `rows` (dataset, split, id, sample) are drawn with."""
    names = rows.select("dataset", "split", "id", "sample").iter_rows()
    return np.stack([uniforms(sampling.seed, *name, sampling.max_new_tokens) for name in names])


def written(responses: Sequence[Response], sampler: Sampler) -> pl.DataFrame:
    """token_ids, text, finish_reason and logp of each response."""
    tokenizer = sampler.processor.tokenizer
    own = [r.token_ids[:-1] if r.finish_reason == "stop" else r.token_ids for r in responses]
    texts = [tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) for ids in own]
    return pl.DataFrame(
        {
            "token_ids": pl.Series([r.token_ids for r in responses], dtype=pl.List(pl.Int32)),
            "text": texts,
            "finish_reason": [r.finish_reason for r in responses],
            "logp": [r.logp for r in responses],
        }
    )


@torch.inference_mode()
def decided(responses: Sequence[Response], prefix: Prefix, sampler: Sampler) -> pl.DataFrame:
    """p_hateful, label_mass and forced of each row's response: one teacher-forced pass behind the same prompts."""
    tokenizer = sampler.processor.tokenizer
    contexts = [answers.context(r.token_ids, tokenizer, sampler.prompt, sampler.ends) for r in responses]
    found = answers.decide(sampler.model, prefix, [c.tokens for c in contexts], sampler.labels)
    p_hateful, label_mass = (column.cpu().numpy() for column in found)
    return pl.DataFrame({"p_hateful": p_hateful, "label_mass": label_mass, "forced": [c.forced for c in contexts]})
