"""Format, accuracy and reward of every run, along training too, and the share of groups without advantage."""

import json
from pathlib import Path

import polars as pl

from memedynamics import gather, reward_dynamics, reward_history, reward_training, tables
from memedynamics.job import run
from memedynamics.prompts import Prompt

ANSWERS = ["fraction", *gather.MEME, "token_ids", "finish_reason", "answer", "format_ok", "correct"]
ANSWERS += ["reward", "p_hateful", "forced"]


def answers(paths: list[Path], probe_kind: str) -> pl.DataFrame:
    """The samples at `paths` with their length in place of their tokens, one table at a time."""
    frames = [gather.frames([path], "samples", ANSWERS) for path in paths]
    short = [frame.with_columns(length=pl.col("token_ids").list.len()).drop("token_ids") for frame in frames]
    return pl.concat(short).with_columns(probe_kind=pl.lit(probe_kind))


def main(
    samples: list[Path],
    base: list[Path],
    histories: list[Path],
    rollouts: list[Path],
    runs: list[Path],
    data: list[Path],
    preferences: Path,
    table: Path,
    resamples: int,
    in_domain: str,
    groups: dict[str, int],
    prompt: Prompt,
    rewards: dict[str, float],
    report: Path | None = None,
) -> None:
    """Write the analysis `rewards`; `groups` is num_generations of every method that draws groups by the study's rules.

    `prompt` and `rewards`, the weights of these rules, read and grade what was drawn. `report`: the reward model's, in
    a study that trains one.
    """
    milestones = gather.milestones(runs)
    given = pl.concat([answers(base, "base_sample"), answers(samples, "own_sample")])
    frame = reward_dynamics.measure(
        gather.whole(given, milestones, "samples"),
        reward_history.logged(histories),
        reward_training.drawn(rollouts, prompt, rewards),
        tables.read(preferences, "preferences", ["dataset", "id"]),
        gather.prompts(data),
        milestones,
        resamples,
        in_domain,
        groups,
        json.loads(report.read_text()) if report else None,
    )
    tables.write(frame, table, "rewards")


if __name__ == "__main__":
    run(main)
