"""Texts beside the base's own samples: their likelihood shows where the probability of a pushed-up response goes.

One text a kind and prompt that gives a pair, seeded, never depending on the order of rows (Ren & Sutherland 2407.10490,
section 3.2, whose probing set this follows):

1. correct_other: another correct, well-formed sample of the same prompt, in other words than the chosen one.
2. other_image: the chosen response to another meme of the same label, in other words than the meme's own.
3. gold_answer: the bare answer block with the gold label, no rationale.
4. greedy: the base's most likely token at every position.
5. permuted: the chosen response's tokens in random order, its end token last.

A prompt without another such response (1, 2) has no text of that kind.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import polars as pl
from transformers import PreTrainedTokenizerBase

from memedynamics.errors import InputError
from memedynamics.grading import graded
from memedynamics.preferences import Rule
from memedynamics.probe_pairs import pairs
from memedynamics.probes import COLUMNS, KEYS
from memedynamics.prompts import Prompt

KINDS = ("correct_other", "other_image", "gold_answer", "greedy", "permuted")


def build(
    samples: pl.DataFrame,
    greedy: pl.DataFrame,
    memes: pl.DataFrame,
    prompt: Prompt,
    weights: dict[str, float],
    rule: Rule,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> pl.DataFrame:
    """The extra texts, graded, in schema `probes`, for every meme of `memes` whose `samples` give a pair by `rule`.

    `samples`: schema `samples` of the base; `greedy`: schema `drawn`; `memes`: schema `data`; `weights` of rewards.
    Raises InputError where a paired meme has no greedy path.
    """
    samples = samples.join(memes.select(*KEYS, "label"), KEYS).sort(*KEYS, "sample")
    if samples.is_empty():
        return samples.select(pl.lit("").alias("probe_kind"), *COLUMNS[1:])
    chosen = samples.join(
        pairs(samples, rule).select(*KEYS, sample="chosen_sample"), [*KEYS, "sample"], "semi", maintain_order="left"
    )
    found = [
        others(samples, chosen, seed),
        from_other_images(chosen, seed),
        gold_answers(chosen, prompt, tokenizer, ending(samples)),
        greedy_paths(greedy, chosen),
        permuted(chosen, tokenizer, seed),
    ]
    rows = pl.concat(
        frame.select(
            *KEYS, pl.col("sample").cast(pl.Int16), pl.col("token_ids").cast(pl.List(pl.Int32)), "text"
        ).with_columns(probe_kind=pl.lit(kind))
        for kind, frame in zip(KINDS, found, strict=True)
    )
    return graded(rows, memes, weights, prompt).select(COLUMNS)


def others(samples: pl.DataFrame, chosen: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Of each prompt of `chosen` one other correct, well-formed sample, under its own index."""
    good = samples.filter("correct", "format_ok").join(chosen.select(*KEYS, chosen_text="text"), KEYS)
    picked = [
        rows[int(_random(seed, "correct_other", *key).integers(len(rows)))]
        for key, rows in good.filter(pl.col("text") != pl.col("chosen_text")).group_by(KEYS, maintain_order=True)
    ]
    return pl.concat([good.clear(), *picked])


def from_other_images(chosen: pl.DataFrame, seed: int) -> pl.DataFrame:
    """To each row of `chosen` the response of another with the same label; `sample` is 0."""
    return _like(chosen, _from_other_images(chosen, seed))


def _from_other_images(chosen: pl.DataFrame, seed: int) -> Iterator[dict]:
    labels, texts, tokens = chosen["label"].to_numpy(), np.array(chosen["text"]), chosen["token_ids"].to_list()
    for row in chosen.select(*KEYS, "label", "text").iter_rows(named=True):
        others = np.flatnonzero((labels == row["label"]) & (texts != row["text"]))
        if len(others):
            source = int(_random(seed, "other_image", *_key(row)).choice(others))
            yield {**row, "token_ids": tokens[source], "text": str(texts[source])}


def gold_answers(
    chosen: pl.DataFrame, prompt: Prompt, tokenizer: PreTrainedTokenizerBase, end: list[int]
) -> pl.DataFrame:
    """To each row of `chosen` its label in an answer block, spaced as the prompts show it, then the token `end`."""
    words = {1: prompt.labels["yes"], 0: prompt.labels["no"]}
    texts = {label: f"<answer> {word} </answer>" for label, word in words.items()}
    tokens = {label: [*tokenizer(text, add_special_tokens=False).input_ids, *end] for label, text in texts.items()}
    rows = chosen.select(*KEYS, "label").iter_rows(named=True)
    return _like(chosen, ({**row, "text": texts[row["label"]], "token_ids": tokens[row["label"]]} for row in rows))


def ending(samples: pl.DataFrame) -> list[int]:
    """The token that ends most of `samples`; none where all were cut."""
    stopped = samples.filter(pl.col("finish_reason") == "stop")["token_ids"].list.last()
    return stopped.mode().sort().head(1).to_list()


def greedy_paths(greedy: pl.DataFrame, chosen: pl.DataFrame) -> pl.DataFrame:
    """The greedy paths of the prompts of `chosen`; InputError where there is none."""
    if lost := chosen.join(greedy, KEYS, "anti").select(KEYS).sort(KEYS).rows():
        raise InputError(f"greedy: no path for {len(lost)} memes ({'/'.join(lost[0])} is the first); decode them again")
    return greedy.join(chosen, KEYS, "semi")


def permuted(chosen: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, seed: int) -> pl.DataFrame:
    """The tokens of each row of `chosen` shuffled, but for an end token, which stays last; `sample` is 0."""
    return _like(chosen, _permuted(chosen, tokenizer, seed))


def _permuted(chosen: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[dict]:
    for row in chosen.select(*KEYS, "label", "token_ids", "finish_reason").iter_rows(named=True):
        words = row["token_ids"][: -1 if row["finish_reason"] == "stop" else None]
        shuffled = [words[i] for i in _random(seed, "permuted", *_key(row)).permutation(len(words))]
        text = tokenizer.decode(shuffled, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        yield {**row, "token_ids": shuffled + row["token_ids"][len(words) :], "text": text}


def _like(chosen: pl.DataFrame, rows: Iterable[dict]) -> pl.DataFrame:
    """`rows` of KEYS, token_ids and text, typed as `chosen`; sample 0."""
    columns = [*KEYS, "sample", "token_ids", "text"]
    schema = {name: chosen.schema[name] for name in columns}
    return pl.DataFrame([{**{name: row.get(name) for name in columns}, "sample": 0} for row in rows], schema=schema)


def _key(row: dict) -> list[str]:
    return [row[name] for name in KEYS]


def _random(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, *"/".join(names).encode()])
