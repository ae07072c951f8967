"""A judge's preference between two base samples of every train prompt, and between those of the label-based pairs."""

from pathlib import Path

import torch

from memedynamics import judge, judge_plan, tables, vlm
from memedynamics.batching import cut
from memedynamics.config import BaseModelConfig
from memedynamics.job import progress, run
from memedynamics.judge_prompts import JudgePrompt
from memedynamics.parts import Parts
from memedynamics.prompts import Prompt


def main(
    model: Path,
    preferences: Path,
    samples: Path,
    data: Path,
    judgements: Path,
    base: BaseModelConfig,
    prompt: Prompt,
    judge_prompt: JudgePrompt,
    question: str,
    batch_size: int,
    threads: int,
    work: Path,
) -> None:
    """`model` is the judge's folder and `base` its settings; batches on disk are not judged again."""
    torch.set_num_threads(threads)
    processor = vlm.load_processor(model)
    numbers = judge.Numbers(processor.tokenizer, base.source)
    pairs = judge_plan.pairs(
        tables.read(samples, "samples", judge_plan.SAMPLES),
        tables.read(preferences, "preferences"),
        tables.read(data, "data"),
        prompt,
        judge_prompt,
        question,
    )
    batches = {f"{place:05d}": batch for place, batch in enumerate(cut(pairs, batch_size))}
    parts = Parts(work, "judgements")
    if left := [key for key in batches if not parts.done(key)]:
        policy = vlm.load_model(model, base.dtype, base.attn_implementation)
        for key in progress(left, "judge"):
            parts.write(key, judge.judgements(policy, processor, numbers, batches[key]))
    parts.merge(batches, judgements)


if __name__ == "__main__":
    run(main)
