"""One run's milestones against the base model, on fixed probes and its own samples: a shard of traces and responses."""

import json
from pathlib import Path
from typing import Literal

import torch

from memedynamics import policies, score_plan, tables, vlm
from memedynamics.answers import Labels
from memedynamics.batching import shard
from memedynamics.config import BaseModelConfig, Scoring
from memedynamics.job import progress, run
from memedynamics.keys import MEME
from memedynamics.milestones import scored
from memedynamics.parts import Parts
from memedynamics.prompts import Prompt
from memedynamics.scoring import Scorer, meme

BASE = {"kind": "base", "steps": {"0": 0}}


def main(
    model: Path,
    data: list[Path],
    traces: Path,
    responses: Path,
    scatteritem: str,
    base: BaseModelConfig,
    prompt: Prompt,
    questions: dict[str, str],
    scoring: Scoring,
    fractions: list[float],
    pair_rule: Literal["paired", "seed"],
    threads: int,
    work: Path,
    probes: Path | None = None,
    milestones: Path | None = None,
    run: Path | None = None,
    own: Path | None = None,
    parent: Path | None = None,
) -> None:
    """Without `milestones` it is the base against itself through the other code path: the noise floor.

    With `parent`, the samples of the run that this one began at, the reference is that run: its own fraction 0.
    """
    torch.set_num_threads(threads)
    record = json.loads(run.read_text()) if run else BASE
    fractions = [f for f in scored(fractions, record) if f or not parent]
    drawn = tables.read(own, "samples") if own else None
    fixed = score_plan.of_parent(tables.read(parent, "samples"), drawn) if parent else tables.read(probes, "probes")
    passes = score_plan.passes(fixed, drawn, fractions, record["kind"] == "full", pair_rule)
    batches = shard(score_plan.batches(passes, scoring.batch_size), scatteritem)
    sources = score_plan.sources(tables.read_all(data, "data", [*MEME, "image", "text"]), batches)
    load = policies.against_start if parent else policies.load
    choose = load(model, base, record["kind"], milestones, fractions)
    processor = vlm.load_processor(model)
    scorer = Scorer(choose, processor, prompt, Labels(processor.tokenizer, prompt), scoring.chunk, plainly=not run)
    finished = {traces: Parts(work, "traces"), responses: Parts(work, "responses")}
    for batch in progress(batches, "score"):
        if not all(parts.done(batch.key) for parts in finished.values()):
            memes = [meme(rows, sources, prompt, questions) for rows in batch.prompts]
            for parts, frame in zip(finished.values(), scorer.score(memes, batch.fractions), strict=True):
                parts.write(batch.key, frame)
    for output, parts in finished.items():
        parts.merge([batch.key for batch in batches], output)


if __name__ == "__main__":
    run(main)
