"""The base model's K responses to every meme of one shard of a split."""

from pathlib import Path

import torch

from memedynamics import sampling as drawing
from memedynamics import tables, vlm
from memedynamics.config import BaseModelConfig, Sampling
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
) -> None:
    """Batches on disk are not drawn again: a killed job loses at most one."""
    torch.set_num_threads(threads)
    batches = drawing.base_batches(tables.read(data, "data"), sampling.batch_size, scatteritem)
    parts = Parts(work, "drawn")
    left = [batch for batch in batches if not parts.done(batch.key)]
    if left:
        policy = vlm.load_model(model, base.dtype, base.attn_implementation)
        sampler = drawing.sampler(policy, vlm.load_processor(model), prompt, sampling)
        for batch in progress(left, f"sample {dataset} {scatteritem}"):
            drawing.finish(sampler, batch, {dataset: question}, parts)
    parts.merge([batch.key for batch in batches], samples)


if __name__ == "__main__":
    run(main)
