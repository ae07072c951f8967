"""The base model's greedy path for the probed val memes: its most likely token at every position."""

from pathlib import Path

import torch

from memedynamics import sampling as drawing
from memedynamics import tables, vlm
from memedynamics.config import BaseModelConfig, Probes, Sampling
from memedynamics.job import progress, run
from memedynamics.parts import Parts
from memedynamics.probes import KEYS, subset
from memedynamics.prompts import Prompt


def main(
    data: Path,
    model: Path,
    samples: Path,
    base: BaseModelConfig,
    prompt: Prompt,
    question: str,
    sampling: Sampling,
    sizes: Probes,
    in_domain: str,
    threads: int,
    work: Path,
) -> None:
    """Batches on disk are not decoded again: a killed job loses at most one."""
    torch.set_num_threads(threads)
    memes = tables.read(data, "data")
    memes = memes.join(subset(memes, sizes, in_domain), KEYS, "semi", maintain_order="left")
    batches = drawing.base_batches(memes, sampling.batch_size, "1-of-1")
    parts = Parts(work, "drawn")
    left = [batch for batch in batches if not parts.done(batch.key)]
    if left:
        policy = vlm.load_model(model, base.dtype, base.attn_implementation)
        greedy = sampling.model_copy(update={"num_samples": 1, "temperature": 0.0})
        sampler = drawing.sampler(policy, vlm.load_processor(model), prompt, greedy)
        for batch in progress(left, "greedy"):
            parts.write(batch.key, drawing.answered(sampler, batch, {in_domain: question}))
    parts.merge([batch.key for batch in batches], samples)


if __name__ == "__main__":
    run(main)
