"""One run's attention and decisions on clean and perturbed pictures, at every milestone and for a random update."""

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel

from memedynamics import answers, looking_plan, perturbations, policies, random_update, tables, vlm
from memedynamics.config import Attention, BaseModelConfig
from memedynamics.job import progress, run
from memedynamics.keys import MEME
from memedynamics.looking import Looker, Policy
from memedynamics.looking_decisions import Decider
from memedynamics.milestones import label, scored
from memedynamics.parts import Parts
from memedynamics.prompts import Prompt

BASE = {"kind": "base", "steps": {"0": 0}}


def main(
    model: Path,
    data: list[Path],
    base_samples: list[Path],
    extract: Path,
    base: BaseModelConfig,
    prompt: Prompt,
    questions: dict[str, str],
    fractions: list[float],
    settings: Attention,
    max_new_tokens: int,
    threads: int,
    work: Path,
    milestones: Path | None = None,
    run: Path | None = None,
) -> None:
    """Without `milestones` it is the base alone."""
    torch.set_num_threads(threads)
    record = json.loads(run.read_text()) if run else BASE
    fractions = scored(fractions, record)
    choose = policies.load(model, base, record["kind"], milestones, fractions)
    looked_through = [Policy("trained", f, label(f) if run else None, redraws=f == fractions[-1]) for f in fractions]
    last = label(fractions[-1])
    if record["kind"] == "adapter" and random_update.add(choose(last), milestones / last):
        looked_through.append(Policy("random", fractions[-1], random_update.NAME))

    def switch(name: str | None) -> PreTrainedModel:
        return random_update.activate(choose(None)) if name == random_update.NAME else choose(name)

    memes = tables.read_all(data, "data", looking_plan.COLUMNS)
    samples = tables.read_all(base_samples, "samples", [*MEME, "sample", "token_ids"])
    chosen = looking_plan.chosen(memes, samples, settings)
    batches = looking_plan.batches(chosen, looked_through, settings.batch_size, record["kind"] == "full")
    processor = vlm.load_processor(model)
    tokenizer, ends = processor.tokenizer, vlm.end_token_ids(choose(None), processor)
    read = looking_plan.reader(memes, perturbations.swaps(chosen, memes), tokenizer, prompt, questions, ends)
    decider = Decider(tokenizer, prompt, answers.Labels(tokenizer, prompt), ends, max_new_tokens)
    looker = Looker(switch, processor, decider, settings.noise)
    parts = Parts(work, "extract_attention")
    for batch in progress(batches, "attention"):
        if not parts.done(batch.key):
            parts.write(batch.key, looker.look([read(row) for row in batch.memes.to_dicts()], batch.policies))
    parts.merge([batch.key for batch in batches], extract)


if __name__ == "__main__":
    run(main)
