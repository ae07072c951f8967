"""The base model's K responses to every meme of one shard of a split, drawn by the study's engine."""

from pathlib import Path

import torch

from memedynamics import engines, tables, vlm
from memedynamics import sampling as drawing
from memedynamics.config import BaseModelConfig, Sampling, Server
from memedynamics.job import progress, run
from memedynamics.parts import Parts
from memedynamics.prompts import Prompt


def main(
    data: Path,
    model: Path,
    samples: Path,
    dataset: str,
    scatteritem: str,
    base: BaseModelConfig,
    prompt: Prompt,
    question: str,
    sampling: Sampling,
    threads: int,
    work: Path,
    server: Server | None = None,
) -> None:
    """Batches on disk are not drawn again: a killed job loses at most one."""
    torch.set_num_threads(threads)
    batches = drawing.base_batches(tables.read(data, "data"), sampling.batch_size, scatteritem)
    parts = Parts(work, "drawn")
    left = [batch for batch in batches if not parts.done(batch.key)]
    if left:
        policy = vlm.load_model(model, base.dtype, base.attn_implementation)
        sampler = drawing.sampler(policy, vlm.load_processor(model), prompt, sampling)
        engine = engines.of_base(sampler, model, base, server)
        drawn = engines.drawn(sampler, left, {dataset: question}, engine, base.dtype)
        for batch, rows in progress(drawn, f"sample {dataset} {scatteritem}", len(left)):
            parts.write(batch.key, rows)
    parts.merge([batch.key for batch in batches], samples)


if __name__ == "__main__":
    run(main)
