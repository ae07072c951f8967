"""Gradients of all objectives on one run's milestones, or on the base, over the same val memes: inner products."""

import json
from pathlib import Path

import polars as pl
import torch

from memedynamics import gradient_sketches, policies, policy_gradients, tables, vlm
from memedynamics.batching import cut
from memedynamics.config import Adapter, BaseModelConfig, Gradients
from memedynamics.job import progress, run
from memedynamics.milestones import label, scored
from memedynamics.parts import Parts
from memedynamics.prompts import Prompt


def main(
    model: Path,
    data: list[Path],
    base_samples: list[Path],
    extract: Path,
    base: BaseModelConfig,
    prompt: Prompt,
    questions: dict[str, str],
    settings: Gradients,
    adapter: Adapter,
    sampling_seed: int,
    beta: float,
    group: int,
    fractions: list[float],
    in_domain: str,
    threads: int,
    work: Path,
    milestones: Path | None = None,
    run: Path | None = None,
    own: Path | None = None,
) -> None:
    """Without `milestones` it is the base with a fresh adapter; a milestone that is done is not taken again."""
    torch.set_num_threads(threads)
    record = json.loads(run.read_text()) if run else {"kind": "base", "steps": {"0": 0}}
    wanted = scored(fractions, record)
    paths = [own] if run else base_samples
    samples = pl.concat([tables.finite(tables.read(path, "samples"), path) for path in paths])
    memes = policy_gradients.choose_memes(
        tables.read_all(data, "data"), samples, wanted, settings.memes, sampling_seed, in_domain
    )
    parts = Parts(work, "extract_gradients")
    left = [fraction for fraction in wanted if not parts.done(label(fraction))]
    if left and record["kind"] == "full":
        reason = "full weights have no adapter whose gradients could be compared"
        for fraction in left:
            parts.write(label(fraction), gradient_sketches.without(memes, fraction, reason))
    elif left:
        load = policies.load(model, base, record["kind"], milestones, wanted)
        choose = load if run else policy_gradients.fresh(load(None), adapter)
        taker = policy_gradients.Taker(choose, vlm.load_processor(model), prompt, beta, group, own_start=bool(run))
        for fraction in left:
            asked = policy_gradients.prompted(memes, samples.filter(samples["fraction"] == fraction), prompt, questions)
            batches = progress(cut(range(len(memes)), settings.batch_size), f"gradients at {fraction:g}")
            parts.write(label(fraction), taker.take(memes, asked, batches, fraction))
    parts.merge([label(fraction) for fraction in wanted], extract)


if __name__ == "__main__":
    run(main)
