"""Training examples: pairs and memes as TRL's trainers take them, with the prompt bytes and pictures of sampling.

Prompts of SFT, DPO and KTO are rendered here, so that a training sequence is the sampled one: prompt, response, end
token. TRL's conversational path would append what the chat template writes after the end token, such as a newline.
"""

import functools
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from datasets import Dataset
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from memedynamics.errors import InputError
from memedynamics.images import open_image
from memedynamics.prompts import Prompt, messages, user_text
from memedynamics.vlm import end_token_ids, render

# TRL's columns of responses, and where they come from.
RESPONSES = {
    "sft": {"completion": "chosen"},
    "dpo": {"chosen": "chosen", "rejected": "rejected"},
    "kto": {"completion": "response"},
}


def training_rows(
    preferences: pl.DataFrame, data: pl.DataFrame, prompt: Prompt, question: str, prompts: Literal["paired", "all"]
) -> pl.DataFrame:
    """What is trained on, in the data's order: id, image, label, text, content (the user's words), and the pair's
    chosen, rejected and num_correct, which are empty for prompts without a pair (`prompts` all).

    Raises InputError when nothing is left.
    """
    pairs = preferences.select("id", "chosen", "rejected", "num_correct")
    rows = data.select("id", "image", "label", "text")
    rows = rows.join(pairs, on="id", how="inner" if prompts == "paired" else "left", maintain_order="left")
    if rows.is_empty():
        raise InputError(
            f"preferences: no pair among {len(data)} training prompts; check the base model's answers in samples/base, "
            "or draw more samples a prompt"
        )
    contents = [user_text(prompt, question, text) for text in rows["text"]]
    return rows.with_columns(content=pl.Series(contents, dtype=pl.String))


def correct_samples(rows: pl.DataFrame, samples: pl.DataFrame) -> pl.DataFrame:
    """`rows` with every correct, well-formed base sample of its prompt in place of `chosen`, one row a sample.

    Rejection-sampling fine-tuning (Yuan et al., 2308.01825) with repeats kept: a prompt weighs as much as it is
    answered correctly, so that a step follows the gradient of P(correct and well-formed) under π0, summed over `rows`.
    Raises InputError when there is none.
    """
    good = samples.filter("correct", "format_ok").select("id", "sample", chosen="text").sort("sample")
    found = rows.drop("chosen").join(good, on="id", maintain_order="left_right").drop("sample")
    if found.is_empty():
        raise InputError(
            f"samples: no correct, well-formed response to any of {len(rows)} training prompts; check the base model's "
            "answers in samples/base, or draw more samples a prompt"
        )
    return found


def few(rows: pl.DataFrame, prompts: int | None, seed: int) -> pl.DataFrame:
    """`prompts` of `rows`, drawn by `seed` and kept in their order; all where that is empty or there are no more."""
    if prompts is None or prompts >= len(rows):
        return rows
    return rows[sorted(np.random.default_rng(seed).permutation(len(rows))[:prompts].tolist())]


def dataset(
    kind: Literal["sft", "dpo", "kto", "grpo"], rows: pl.DataFrame, processor: ProcessorMixin, end: str, seed: int = 0
) -> Dataset:
    """`rows` as TRL takes them; pictures are opened when a batch asks for them. `end` is the end token's text.

    `seed` orders KTO's (`unpaired`), which TRL keeps in their order.
    """
    rows = unpaired(rows, seed) if kind == "kto" else rows
    columns: dict[str, list] = {"image": rows["image"].to_list()}
    if kind == "grpo":
        # TRL renders GRPO's prompts itself: it takes pictures with conversational prompts only.
        columns |= {"prompt": [[{"role": "user", "content": content}] for content in rows["content"]]}
        columns |= {name: rows[name].to_list() for name in ("id", "label", "text")}
    else:
        columns |= {"prompt": [render(processor, content) for content in rows["content"]]}
        columns |= {name: [text + end for text in rows[source]] for name, source in RESPONSES[kind].items()}
        columns |= {"label": rows["desirable"].to_list()} if kind == "kto" else {}
    lazy = Dataset.from_dict(columns)
    return lazy.with_transform(_open_pictures, columns=["image"], output_all_columns=True)


def unpaired(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """KTO's rows: `response` and whether it is `desirable`, two a pair, a chosen one and a rejected one in turns.

    Each stands between responses to other prompts, since KTO's KL is measured on a prompt with its neighbour's
    response: the rejected one follows the chosen one of the prompt half of the (shuffled) pairs away. So every even
    batch is half chosen; and every epoch has this order.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen, rejected = rows[order], rows[np.roll(order, -(len(rows) // 2))]
    halves = [
        part.with_columns(
            response=pl.col(name), desirable=pl.lit(name == "chosen"), turn=2 * pl.int_range(pl.len()) + n
        )
        for n, (name, part) in enumerate({"chosen": chosen, "rejected": rejected}.items())
    ]
    return pl.concat(halves).sort("turn").drop("turn")


def _open_pictures(batch: dict[str, list]) -> dict[str, list[Image.Image]]:
    return {"image": [_picture(path) for path in batch["image"]]}


@functools.lru_cache(maxsize=64)
def _picture(path: str) -> Image.Image:
    # GRPO asks for each picture once per completion, in a row.
    return open_image(Path(path))


def end_token(model: PreTrainedModel, processor: ProcessorMixin) -> str:
    """The token that ends a response: the one the chat template writes after the assistant's words, or the EOS."""
    reply = {"role": "assistant", "content": [{"type": "text", "text": "reply"}]}
    rendered = processor.apply_chat_template([*messages(""), reply], tokenize=False)
    tail = processor.tokenizer(rendered.rpartition("reply")[2], add_special_tokens=False).input_ids
    ends = end_token_ids(model, processor)
    return processor.tokenizer.decode([next((i for i in tail if i in ends), processor.tokenizer.eos_token_id)])
