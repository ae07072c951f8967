"""All methods side by side, and the study's questions answered with numbers, intervals and the agreement of seeds."""

import json
from pathlib import Path

import polars as pl

from memedynamics import gains, gather, summary, tables
from memedynamics.job import run

ANSWERS = ["fraction", *gather.MEME, "correct"]
SCORES = ["fraction", "probe_kind", *gather.MEME, "kl_forward"]


def main(
    accuracy: Path,
    kl: Path,
    likelihood: Path,
    spectrum: Path,
    sharpe: Path,
    attention: Path,
    entropy: Path,
    samples: list[Path],
    base: list[Path],
    responses: list[Path],
    runs: list[Path],
    data: list[Path],
    table: Path,
    resamples: int,
    in_domain: str,
    kinds: dict[str, str],
) -> None:
    """Write the analysis `summary`; `kinds` is each method's kind, those that stand for their kind first."""
    found = {
        "accuracy": tables.read(accuracy, "accuracy"),
        "kl": tables.read(kl, "kl").filter(pl.col("reference") == gather.BASE),
        "likelihood": tables.read(likelihood, "likelihood"),
        "spectrum": tables.read(spectrum, "spectrum"),
        "sharpe": tables.read(sharpe, "sharpe"),
        "attention": tables.read(attention, "attention"),
        "entropy": tables.read(entropy, "entropy"),
    }
    prompts, milestones = gather.prompts(data), gather.milestones(runs)
    answers = pl.concat([gather.frames(paths, "samples", ANSWERS) for paths in (samples, base)])
    answers = gather.whole(answers, milestones, "samples")
    scores = gather.whole(gather.frames(responses, "responses", SCORES), milestones, "responses")
    gained = gains.rows(answers, scores, prompts, gains.floors(found["kl"]), resamples)
    records = {gather.run_of(path): json.loads(path.read_text()) for path in runs}
    frame = summary.measure(found, records, gained, prompts, milestones, kinds, in_domain)
    tables.write(frame, table, "summary")


if __name__ == "__main__":
    run(main)
