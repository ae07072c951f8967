"""Preference pairs from the base samples on train, every prompt's outcome, and the pairs in other trainers' formats."""

from pathlib import Path

from memedynamics import exports, tables
from memedynamics.job import run
from memedynamics.preferences import Rule, build
from memedynamics.prompts import Prompt


def main(
    samples: Path,
    data: Path,
    preferences: Path,
    outcomes: Path,
    trl: Path,
    llamafactory: Path,
    rule: Rule,
    prompt: Prompt,
    question: str,
) -> None:
    columns = ["dataset", "id", "sample", "text", "correct", "format_ok", "reward"]
    memes = tables.read(data, "data")
    pairs, counts = build(tables.read(samples, "samples", columns), memes, rule, prompt, question)
    tables.write(pairs, preferences, "preferences")
    tables.write(counts, outcomes, "outcomes")
    shown = pairs.join(memes.select("dataset", "id", "image"), ["dataset", "id"], maintain_order="left")
    exports.write_trl(shown, trl)
    exports.write_llamafactory(shown, llamafactory)


if __name__ == "__main__":
    run(main)
