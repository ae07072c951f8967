"""A study small enough to train on in a second: drawn pictures, pairs, a tiny model, and every script's arguments."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import polars as pl

import tiny_models
from memedynamics import tables
from memedynamics.config import Adapter, BaseModelConfig, Sampling, TrainedMethod
from memedynamics.methods import GRPO, ON_POLICY, EntropyMinimisation, Matched, rule_of
from memedynamics.prompts import Prompt, load_prompt, user_text

ROOT = Path(__file__).parent.parent
PROMPT: Prompt = load_prompt(ROOT / "config/prompts/think_answer.yaml")
# Random completions keep no format: vowels are a reward that differs between them.
REWARDS = {"format": 0.1, "tiny_study.vowels": 0.9}
SHARED = {"per_device_train_batch_size": 8, "num_train_epochs": 2, "gradient_checkpointing": False}
OWN = {
    "sft": {"learning_rate": 1e-2},
    "dpo": {"learning_rate": 1e-2},
    "kto": {"learning_rate": 1e-2},
    "rloo": {"learning_rate": 1e-2, "num_generations": 4},
    **{kind: {"learning_rate": 1e-2, "num_generations": 4} for kind in GRPO},
    "rft": {"learning_rate": 1e-2},
    "em": {"learning_rate": 1e-2, "num_generations": 4},
}


def vowels(completions: list, **columns: list) -> list[float]:
    """The number of vowels of each completion."""
    return [float(sum(letter in "aeiou" for letter in completion[0]["content"])) for completion in completions]


def response(answer: str, what: str = "cat") -> str:
    """A well-formed response."""
    return f"<think> the picture shows a {what} </think><answer> {answer} </answer>"


def write_study(folder: Path, num_memes: int = 24) -> Path:
    """Write pictures, data.parquet, preferences.parquet and samples.parquet into `folder`.

    Every fourth meme gave no pair. Meme i has 1 + i % 7 good samples of 8, and a correct one that breaks the format.
    """
    ids, answers = [f"m{i:02d}" for i in range(num_memes)], ["No", "Yes"]
    for i, name in enumerate(ids):
        tiny_models.picture(i, 56 + 28 * (i % 2)).save(folder / f"{name}.png")
    memes = {
        "dataset": "memes",
        "split": "train",
        "id": ids,
        "image": [str(folder / f"{name}.png") for name in ids],
        "image_sha256": "0" * 64,
        "width": 56,
        "height": 56,
        "text": [f"caption {i}" for i in range(num_memes)],
        "label": [i % 2 for i in range(num_memes)],
        "groups": pl.Series([[]] * num_memes, dtype=pl.List(pl.String)),
    }
    tables.write(pl.DataFrame(memes), folder / "data.parquet", "data")
    kept = [i for i in range(num_memes) if i % 4 != 3]
    pairs = {
        "dataset": "memes",
        "id": [ids[i] for i in kept],
        "prompt": [user_text(PROMPT, "hateful", f"caption {i}") for i in kept],
        "chosen": [response(answers[i % 2]) for i in kept],
        "rejected": [response(answers[1 - i % 2], "caption") for i in kept],
        "chosen_sample": 0,
        "rejected_sample": 1,
        "pair_type": "wrong_answer",
        "num_correct": [1 + i % 7 for i in kept],
    }
    tables.write(pl.DataFrame(pairs), folder / "preferences.parquet", "preferences")
    tables.write(samples(ids), folder / "samples.parquet", "samples")
    return folder


def samples(ids: list[str], count: int = 8) -> pl.DataFrame:
    """Base samples of the memes `ids`: the first are well-formed and right, the last right but badly formed."""
    rows = [(i, k, k <= i % 7 or k == count - 1) for i in range(len(ids)) for k in range(count)]
    texts = [response(["No", "Yes"][i % 2 if right else 1 - i % 2], f"cat {k}") for i, k, right in rows]
    return pl.DataFrame(
        {
            "fraction": 0.0,
            "dataset": "memes",
            "split": "train",
            "id": [ids[i] for i, _, _ in rows],
            "sample": pl.Series([k for _, k, _ in rows], dtype=pl.Int16),
            "token_ids": pl.Series([[5]] * len(rows), dtype=pl.List(pl.Int32)),
            "tokens": "drawn",
            "text": texts,
            "finish_reason": "stop",
            "logp": -1.0,
            "answer": "yes",
            "format_ok": [k < count - 1 for _, k, _ in rows],
            "correct": [right for *_, right in rows],
            "reward": 0.0,
            "p_hateful": 0.5,
            "label_mass": 1.0,
            "forced": False,
        }
    )


def outputs(folder: Path) -> dict[str, Path]:
    """The outputs of a run that lies in `folder`, as the scripts name them."""
    names = {
        "milestones": "milestones",
        "history": "history.parquet",
        "rollouts": "rollouts.parquet",
        "run": "run.json",
    }
    return {name: folder / file for name, file in names.items()}


MATCHED = Matched(
    training=SHARED,
    adapter=Adapter(r=4),
    base=BaseModelConfig(source="tiny", dtype="float32"),
    prompt=PROMPT,
    question="hateful",
)


def recipe(kind: str, **args: object) -> TrainedMethod:
    """The method of `kind`; `args` are its trainer arguments, and em's own fields under their names.

    Random completions never answer, so em's objective is the tokens' entropy unless another is named.
    """
    if kind != "em":
        return TrainedMethod(kind=kind, args={**OWN[kind], **args})
    own = {"objective": "token"} | {
        name: args.pop(name) for name in ("objective", "prompts", "label_gated") if name in args
    }
    return EntropyMinimisation(kind=kind, args={**OWN[kind], **args}, **own)


def settings(kind: str, seed: int = 1, **args: object) -> dict[str, object]:
    """The `cfg` of a training job and its seed; `args` as for `recipe`."""
    common = {"method": recipe(kind, **args), "matched": MATCHED, "fractions": [0, 0.0625, 0.125, 0.5, 1], "seed": seed}
    own = {"rewards": REWARDS, "sampling": Sampling(max_new_tokens=8), "train_prompts": "paired"}
    return {**common, **own} if kind in ON_POLICY else common


def inputs(study: Path, family: str = "qwen2_5_vl") -> dict[str, Path]:
    """The inputs of a training job."""
    return {
        "model": tiny_models.folder(family),
        "preferences": study / "preferences.parquet",
        "data": study / "data.parquet",
    }


def script(name: str) -> Callable[..., None]:
    """`main` of workflow/scripts/<name>.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"workflow/scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def train(
    kind: str,
    study: Path,
    run: Path,
    family: str = "qwen2_5_vl",
    seed: int = 1,
    adapter: Adapter | None = None,
    **args: object,
) -> dict[str, Path]:
    """Run the training script of `kind` in this process, its outputs (returned) and its state in `run`."""
    run.mkdir(parents=True, exist_ok=True)
    where = {**inputs(study, family), **outputs(run), "work": run / "work", "threads": 1}
    where |= {"samples": study / "samples.parquet"} if kind == "rft" else {}
    given = settings(kind, seed, **args)
    given["method"] = given["method"].model_copy(update={"adapter": adapter})
    script(rule_of(given["method"]))(**where, **given)
    return outputs(run)
