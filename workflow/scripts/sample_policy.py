"""A run's own responses: to some val memes at every milestone, to all held-out memes at the last one.

Fraction 0 of a run that starts at the base is not sampled: there it answers as the base does.
"""

import json
from pathlib import Path

import torch

from memedynamics import engines, policies, tables, vlm
from memedynamics import sampling as drawing
from memedynamics.batching import shard
from memedynamics.config import BaseModelConfig, OwnSamples, Sampling
from memedynamics.job import progress, run
from memedynamics.milestones import label, scored
from memedynamics.parts import Parts
from memedynamics.prompts import Prompt


def main(
    data: list[Path],
    model: Path,
    milestones: Path,
    run: Path,
    samples: Path,
    method: str,
    seed: str,
    scatteritem: str,
    base: BaseModelConfig,
    prompt: Prompt,
    questions: dict[str, str],
    sampling: Sampling,
    own: OwnSamples,
    fractions: list[float],
    in_domain: str,
    threads: int,
    work: Path,
) -> None:
    """Batches on disk are not drawn again: a killed job loses at most one."""
    torch.set_num_threads(threads)
    record = json.loads(run.read_text())
    saved = scored(fractions, record)
    memes = [frame for frame in (tables.read(path, "data") for path in data) if len(frame)]
    batches = shard(drawing.policy_batches(memes, own, sampling, saved, in_domain), scatteritem)
    parts = Parts(work, "drawn")
    left = [batch for batch in batches if not parts.done(batch.key)]
    if left:
        choose, processor = policies.load(model, base, record["kind"], milestones, saved), vlm.load_processor(model)

        def policy(name: str) -> drawing.Sampler:
            return drawing.sampler(choose(name), processor, prompt, sampling)

        folders = {label(fraction): milestones / label(fraction) for fraction in saved}
        engine = engines.of_policy(policy(label(left[0].fraction)), model, base, folders)
        drawn = engines.drawn_by_milestone(policy, left, questions, engine, base.dtype)
        for batch, rows in progress(drawn, f"sample {method} seed {seed}", len(left)):
            parts.write(batch.key, rows)
    parts.merge([batch.key for batch in batches], samples)


if __name__ == "__main__":
    run(main)
