"""Step-0 invariants of one method, on a few real memes, before anything trains; stops at the first that is violated."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl
import torch
from transformers import Trainer
from trl import GRPOTrainer

from memedynamics import checksums, modes, tables
from memedynamics.config import Sampling
from memedynamics.entropy_minimisation import EntropyTrainer
from memedynamics.examples import correct_samples, training_rows
from memedynamics.first_step import one_step
from memedynamics.forced_logps import TOLERANCE, reader
from memedynamics.invariants import measure, require
from memedynamics.job import run
from memedynamics.methods import EntropyMinimisation, Matched, Trained
from memedynamics.rewards import reward_functions
from memedynamics.saving import Policy
from memedynamics.starting import PUT_ON, starting_policy
from memedynamics.targets import targeted
from memedynamics.training import trainer, trainer_config
from memedynamics.vlm import load_model, load_processor

# How many memes are read, and how many base samples of each.
MEMES, SAMPLES = 4, 2


def main(
    model: Path,
    preferences: Path,
    data: Path,
    samples: Path,
    report: Path,
    method: Trained,
    matched: Matched,
    threads: int,
    work: Path,
    rewards: dict[str, float] | None = None,
    sampling: Sampling | None = None,
    start: Path | None = None,
) -> None:
    """Check adapter and trainer arguments, then every invariant; write {invariant: {value, tolerance, ok}}."""
    torch.set_num_threads(threads)
    kind, base, args = method.kind, matched.base, {**matched.training, **method.args}
    fixed = {"dtype": base.dtype, "sampling": sampling, "weights": rewards}
    adapter = method.adapter or matched.adapter
    modes.check(adapter, args)
    trainer_config(kind, args, work, **fixed)
    rows, drawn = few_memes(preferences, data, samples, matched, method.target)
    policy, processor = load_model(model, base.dtype, base.attn_implementation), load_processor(model)
    few = reader(policy, processor, matched.prompt, rows, drawn, SAMPLES)
    examples = correct_samples(rows, drawn).head(MEMES) if kind == "rft" else rows

    def begun() -> Policy:
        # Adapters that the trainer itself puts on go on the base at hand.
        if start is None and adapter.kind in PUT_ON:
            return policy
        return starting_policy(model, base, adapter, start, method.reference)

    def made(beginning: Policy) -> Trainer:
        config = trainer_config(kind, one_step(kind, args, len(examples)), work, **fixed).set_save("no")
        graders = reward_functions(rewards or {}, matched.prompt)
        given = (config, beginning, processor, examples, adapter, graders, None, loop(method, matched))
        return trainer(*given, reference=method.reference)

    found, parent = {}, start / "1" if start else None
    away = parent is not None and method.reference == "base"
    for name, invariant in measure(few, policy, begun, made, work / "milestone", TOLERANCE[base.dtype], parent, away):
        require(name, invariant, kind, base.dtype)
        found[name] = {**invariant._asdict(), "ok": invariant.ok}
    checksums.write_json(report, found)


def few_memes(
    preferences: Path, data: Path, samples: Path, matched: Matched, target: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The first training rows that have pairs, with what `target` says in the column chosen, and the base's samples."""
    pairs, memes = tables.read(preferences, "preferences"), tables.read(data, "data")
    rows = training_rows(pairs, memes, matched.prompt, matched.question, "paired")
    rows = targeted(rows, memes, matched.prompt, target).head(MEMES)
    drawn = tables.read(samples, "samples", ["id", "sample", "token_ids", "text", "logp", "correct", "format_ok"])
    return rows, drawn


def loop(method: Trained, matched: Matched) -> Callable[..., GRPOTrainer]:
    """The on-policy trainer: GRPO's, or EM's without its gate, which would leave out responses that prove as much."""
    if not isinstance(method, EntropyMinimisation):
        return GRPOTrainer
    return partial(EntropyTrainer, objective=method.objective, label_gated=False, prompt=matched.prompt)


if __name__ == "__main__":
    run(main)
