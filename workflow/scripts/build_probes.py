"""The fixed texts that every policy scores: base samples of a seeded subset of prompts, and texts to compare them with.

The latter (`probe_texts`) for the in-domain val memes that give a pair.
"""

from pathlib import Path
from typing import Literal

import polars as pl

from memedynamics import probe_texts, tables, vlm
from memedynamics import probes as chosen
from memedynamics.config import Probes
from memedynamics.job import run
from memedynamics.prompts import Prompt


def main(
    samples: list[Path],
    data: list[Path],
    greedy: Path,
    model: Path,
    probes: Path,
    sizes: Probes,
    in_domain: str,
    prompt: Prompt,
    rewards: dict[str, float],
    pair_rule: Literal["paired", "seed"],
) -> None:
    columns = [*chosen.COLUMNS[1:], "text", "finish_reason"]
    drawn = tables.read_all(samples, "samples", columns)
    memes = tables.read_all(data, "data", [*chosen.KEYS, "label", "text"])
    kept = chosen.subset(memes, sizes, in_domain)
    val = memes.join(kept.filter(dataset=in_domain, split="val"), chosen.KEYS, "semi")
    tokenizer = vlm.load_processor(model).tokenizer
    paths = tables.read(greedy, "drawn", [*chosen.KEYS, "sample", "token_ids", "text"])
    extra = probe_texts.build(drawn, paths, val, prompt, rewards, pair_rule, tokenizer, sizes.seed)
    tables.write(pl.concat([chosen.build(drawn, memes, sizes, in_domain), extra]), probes, "probes")


if __name__ == "__main__":
    run(main)
