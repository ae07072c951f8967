"""SFT or DPO by LLaMA-Factory, in its own environment, from the same start and into the same artefacts as by TRL."""

from pathlib import Path

import torch

from memedynamics import llamafactory, llamafactory_process, llamafactory_run, tables
from memedynamics.checkpoints import stored_dtype
from memedynamics.examples import training_rows
from memedynamics.job import run
from memedynamics.llamafactory_data import PLACEHOLDERS
from memedynamics.methods import Matched, TrainedMethod
from memedynamics.starting import starting_policy
from memedynamics.targets import targeted
from memedynamics.training import trainer_config


def main(
    model: Path,
    preferences: Path,
    data: Path,
    environment: Path,
    milestones: Path,
    history: Path,
    rollouts: Path,
    run: Path,
    method: TrainedMethod,
    matched: Matched,
    fractions: list[float],
    seed: int,
    threads: int,
    work: Path,
    start: Path | None = None,
) -> None:
    """Train in a process of LLaMA-Factory's and write the run's artefacts."""
    torch.set_num_threads(threads)
    outputs = {"milestones": milestones, "history": history, "rollouts": rollouts, "run": run}
    adapter, base, kind = method.adapter or matched.adapter, matched.base, method.kind
    llamafactory.check(method, adapter.kind, base, stored_dtype(model))
    python = llamafactory_process.interpreter(environment)
    trl, own = llamafactory.split(kind, {**matched.training, **method.args})
    config = trainer_config(kind, trl, work / "checkpoints", seed, base.dtype)
    pairs, memes = tables.read(preferences, "preferences"), tables.read(data, "data")
    rows = training_rows(pairs, memes, matched.prompt, matched.question, "paired")
    rows = targeted(rows, memes, matched.prompt, method.target)
    found = starting_policy(model, base, adapter, start, method.reference)
    policy = llamafactory_run.begin(found, adapter, seed, work / "adapter")
    known = llamafactory_run.facts(policy, config, method.reference, environment)
    loss = llamafactory_run.first_loss(config, own, known)
    llamafactory_run.write_inputs(kind, rows, policy, model, fractions, work, loss)
    del found, policy  # the device is LLaMA-Factory's now
    torch.cuda.empty_cache()
    parent = work / "adapter" if method.reference == "parent" else None
    given = llamafactory.fixed(kind, model, work / "adapter", base, work / "data", work / "checkpoints", parent)
    given = {**own, **llamafactory.arguments(config, trl), **given}
    variables = {**PLACEHOLDERS, "OMP_NUM_THREADS": str(threads), "HF_DATASETS_CACHE": str(work / "cache")}
    variables["TENSORBOARD_LOGGING_DIR"] = str(run.parent / "tensorboard")  # as in `runs.hooks`
    files = (work / "arguments.yaml", work / "settings.json", work / "llamafactory.log")
    if not llamafactory_run.ended(work / "checkpoints"):
        llamafactory_run.write_arguments(given, work / "checkpoints", work / "arguments.yaml")
        llamafactory_process.train(python, *files, variables, kind.upper())
    llamafactory_run.write(kind, rows, known, fractions, work, outputs)


if __name__ == "__main__":
    run(main)
