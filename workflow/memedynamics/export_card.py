"""The cards of an exported run: what the study's files say of it, in the words of `model_card`."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from memedynamics import card_numbers, environment, model_card, sources, tables
from memedynamics.model_card import Raw
from memedynamics.prompts import Prompt, user_text

WHOLE = "The folder is whole: weights, processor and chat template load with plain transformers."
ADAPTER = "The adapter needs the base model, and loads with plain transformers and PEFT."
MERGED_TOO = " Merged into the base model it lies one folder above."
IN_DECODER = (
    "Virtual tokens change no weight, so there is no merged model: the adapter alone is here. The study put them in "
    "front of the text decoder's own sequence (memedynamics.soft_prompts). PEFT's own forward gives the same logits "
    "only where the model's rotary positions run on one axis, not on Qwen-VL's three."
)
WHAT = {
    "sft": "Supervised fine-tuning on chosen responses.", "rft": "Supervised fine-tuning on all correct samples (RFT).",
    "dpo": "Direct preference optimisation.", "kto": "Kahneman-Tversky optimisation.", "em": "Entropy minimisation.",
    "merge": "A merge of other runs of the study.", "external": "A checkpoint trained elsewhere.",
}  # fmt: skip


class Story(NamedTuple):
    """What a run is: its names, its recipe in the study file, what all runs share, and its record (run.json)."""

    study: str
    method: str
    seed: int
    recipe: Mapping[str, object]
    shared: Mapping[str, object]
    run: Mapping[str, object]
    base: Mapping[str, object]  # the base model's manifest
    hub_datasets: Mapping[str, str]
    in_domain: str


def values(story: Story, data: Sequence[Path], analyses: Sequence[Path], check: Mapping[str, object]) -> dict:
    """What the card's text is filled with; analyses that are not there leave their part empty."""
    there = {path.stem: path for path in analyses if path.is_file()}
    known = dict.fromkeys(("num_prompts", "mean_num_correct", "label_balance"))
    return {
        **{name: getattr(story, name) for name in ("study", "method", "seed", "base", "in_domain")},
        "what": WHAT.get(story.recipe["kind"], f"Reinforcement learning ({story.recipe['kind']})."),
        "run": known | dict(story.run),
        "settings": _settings(story),
        "data": card_numbers.data([tables.read(path, "data", ["dataset", "split", "label"]) for path in data]),
        "metrics": _metrics(there.get("accuracy"), story),
        "movement": _movement(there.get("kl"), story),
        "versions": ", ".join(f"{name} {version}" for name, version in _versions(story.run).items()),
        "check": check,
    }


def _metrics(table: Path | None, story: Story) -> list:
    return card_numbers.metrics(tables.read(table, "accuracy"), story.method, story.seed) if table else []


def _movement(table: Path | None, story: Story) -> list:
    return card_numbers.movement(tables.read(table, "kl"), story.method, story.seed) if table else []


def _settings(story: Story) -> list[tuple[str, object]]:
    made = ("total_steps", "epochs", "tokens", "flops", "trainable_parameters", "merge")
    trained = {"trained": {name: story.run.get(name) for name in made}}
    shared = story.shared if story.recipe["kind"] not in ("merge", "external") else {}
    rows = [*card_numbers.settings(story.recipe), *card_numbers.settings(shared), *card_numbers.settings(trained)]
    return [*rows, *_reference(story.run)]


def _reference(run: Mapping[str, object]) -> list[tuple[str, str]]:
    """What the loss of a run that was trained here compared the policy with."""
    if "loss_reference" not in run:
        return []
    name = run["loss_reference"]
    words = {None: "nothing", "base": "the base model", "own": "its own start"}
    return [("its loss compared it with", words.get(name, f"the end of {name}"))]


def _versions(run: Mapping[str, object]) -> dict[str, str]:
    trainer = {f"{name} (LLaMA-Factory's)": version for name, version in (run.get("packages") or {}).items()}
    commit = {"memedynamics commit": tables.provenance["commit"]} if "commit" in tables.provenance else {}
    return {"Python": platform.python_version(), **environment.installed(), **trainer, **commit}


def hub_id(base: Mapping[str, object]) -> str | None:
    """The base model's id on the hub; None where it came from a folder of this machine, or was made here."""
    return base["source"] if sources.is_hub_id(base["source"]) else None


def write_whole(folder: Path, story: Story, filled: Mapping[str, object], dtype: str, prompt: str) -> None:
    """README.md of the merged model in `folder`; `prompt`: a user message to show how it is asked."""
    relation = "merge" if story.recipe["kind"] == "merge" else "finetune"
    header = model_card.header(hub_id(story.base), relation, sorted(story.hub_datasets.values()), "transformers")
    code = model_card.WHOLE.format(dtype=json.dumps(dtype), prompt=json.dumps(prompt, ensure_ascii=False))
    card = {**filled, "weights": f"whole, {dtype}", "note": Raw(WHOLE)}
    (folder / "README.md").write_text(model_card.render(card, header, code), encoding="utf-8")


def write_adapter(folder: Path, story: Story, filled: Mapping[str, object], dtype: str, soft: bool) -> None:
    """README.md of the adapter in `folder`; `soft`: prompt or prefix tuning, of which there is no merged model."""
    header = model_card.header(hub_id(story.base), "adapter", sorted(story.hub_datasets.values()), "peft")
    base, revision = hub_id(story.base) or "the base model's folder", story.base["revision"] or "main"
    code = model_card.ADAPTER.format(base=json.dumps(base), revision=json.dumps(revision), dtype=json.dumps(dtype))
    card = {**filled, "weights": "adapter", "note": Raw(IN_DECODER if soft else ADAPTER + MERGED_TOO)}
    (folder / "README.md").write_text(model_card.render(card, header, code), encoding="utf-8")


def example(prompt: Prompt, question: str) -> str:
    """The user message about a meme whose caption stands for itself."""
    return user_text(prompt, question, "CAPTION")
