"""Preference pairs that the judge chose, for methods that train on them in place of the label-based ones."""

from pathlib import Path

from memedynamics import judged_pairs, tables
from memedynamics.job import run
from memedynamics.prompts import Prompt


def main(judgements: Path, samples: Path, data: Path, preferences: Path, prompt: Prompt, question: str) -> None:
    judged = tables.finite(tables.read(judgements, "judgements"), judgements)
    drawn = tables.read(samples, "samples", ["dataset", "id", "sample", "text", "correct"])
    pairs = judged_pairs.build(judged, drawn, tables.read(data, "data"), prompt, question)
    tables.write(pairs, preferences, "preferences")


if __name__ == "__main__":
    run(main)
