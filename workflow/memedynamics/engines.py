"""Which engine draws the responses of a job: this project's own decoding, a server, or vLLM."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

import polars as pl

from memedynamics import elsewhere, sampling, vlm
from memedynamics.config import BaseModelConfig, Server
from memedynamics.draws import Draws
from memedynamics.elsewhere import Engine
from memedynamics.milestones import label
from memedynamics.openai_engine import Requests
from memedynamics.sampling import Batch, Sampler
from memedynamics.vllm_engine import Vllm, serves

log = logging.getLogger(__name__)


def of_base(sampler: Sampler, folder: Path, base: BaseModelConfig, server: Server | None) -> Engine | None:
    """What draws base samples of the model in `folder`; None is this project's own decoding."""
    if sampler.sampling.engine == "openai":
        return Requests(server, sampler, folder)
    if sampler.sampling.engine == "vllm":
        return Vllm(folder, base.dtype, sampler, {}).policy(None)
    return None


def of_policy(
    sampler: Sampler, folder: Path, base: BaseModelConfig, milestones: Mapping[str, Path]
) -> Callable[[str], Engine | None]:
    """What draws a run's own samples, by milestone: vLLM where it can put on all of them."""
    if sampler.sampling.engine != "vllm":
        return lambda name: None
    if not all(map(serves, milestones.values())):
        log.warning("vLLM cannot put on this run's milestones: engine transformers draws its responses")
        return lambda name: None
    return Vllm(folder, base.dtype, sampler, milestones).policy


def drawn(
    sampler: Sampler, batches: Iterable[Batch], questions: Mapping[str, str], engine: Engine | None, dtype: str
) -> Iterator[tuple[Batch, pl.DataFrame]]:
    """Each of `batches` with its rows of schema `drawn`; `questions` by dataset.

    Raises InputError where the engine turns out to draw from another model than `sampler`'s.
    """
    if engine is None:
        return ((batch, sampling.answered(sampler, batch, questions)) for batch in batches)
    source = f"sampling.engine {sampler.sampling.engine}"
    draws = Draws(dtype, sampler.sampling.temperature, vlm.picture_token_id(sampler.model), source)
    return elsewhere.answered(sampler, questions, engine, batches, draws)


def drawn_by_milestone(
    policy: Callable[[str], Sampler],
    batches: Iterable[Batch],
    questions: Mapping[str, str],
    engine: Callable[[str], Engine | None],
    dtype: str,
) -> Iterator[tuple[Batch, pl.DataFrame]]:
    """The same of a run's `batches`, which are in the order of their milestones; `policy` and `engine` of each."""
    for fraction, some in groupby(batches, lambda batch: batch.fraction):
        yield from drawn(policy(label(fraction)), some, questions, engine(label(fraction)), dtype)
