"""A run as a folder to serve or to share: merged model, adapter, model card, and the check that it is the policy."""

import json
import shutil
from pathlib import Path

import torch

from memedynamics import export_card, servable, tables, vlm
from memedynamics.adapter_files import is_soft
from memedynamics.config import BaseModelConfig
from memedynamics.export_card import Story
from memedynamics.images import open_image
from memedynamics.job import run
from memedynamics.prompts import Prompt, user_text

CHECKED = 4  # memes whose whole prompts the check compares


def main(
    model: Path,
    milestones: Path,
    run: Path,
    data: list[Path],
    analyses: list[Path],
    folder: Path,
    base: BaseModelConfig,
    prompt: Prompt,
    questions: dict[str, str],
    recipe: dict[str, object],
    shared: dict[str, object],
    hub_datasets: dict[str, str],
    in_domain: str,
    method: str,
    seed: int,
    threads: int,
) -> None:
    """Write `folder` of the end of the run in `milestones`; `data` of all splits, `analyses` that are there."""
    torch.set_num_threads(threads)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    record, manifest = json.loads(run.read_text()), json.loads((model / "base.json").read_text())
    soft = is_soft(milestones / "1")
    if not soft:
        servable.write_model(model, milestones, run, partial)
    if record["kind"] == "adapter":
        servable.write_adapter(milestones / "1", partial / "adapter", export_card.hub_id(manifest))
    memes = tables.read_all(data, "data").filter(dataset=in_domain, split="val").sort("id").head(CHECKED)
    shown = [user_text(prompt, questions[in_domain], text) for text in memes["text"]]
    inputs = servable.prompts(vlm.load_processor(model), list(zip(shown, map(open_image, memes["image"]), strict=True)))
    found = servable.check(model, milestones, record["kind"], partial, base, inputs)
    study = str(tables.provenance.get("study", ""))
    story = Story(study, method, seed, recipe, shared, record, manifest, hub_datasets, in_domain)
    filled = export_card.values(story, data, analyses, found)
    if not soft:
        export_card.write_whole(partial, story, filled, base.dtype, export_card.example(prompt, questions[in_domain]))
    if record["kind"] == "adapter":
        export_card.write_adapter(partial / "adapter", story, filled, base.dtype, soft)
    (partial / "check.json").write_text(json.dumps(found, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


if __name__ == "__main__":
    run(main)
