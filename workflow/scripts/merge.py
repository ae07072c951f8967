"""A merge of other runs as a run: the base plus a combination of their updates, milestones 0 and 1."""

import shutil
from pathlib import Path

import torch

from memedynamics import checksums, external, merged_model, schemas, sources, tables, trained_on
from memedynamics.config import MergedMethod
from memedynamics.job import run
from memedynamics.merge_parents import open_parent


def main(
    model: Path,
    parents: list[Path],
    runs: list[Path],
    milestones: Path,
    history: Path,
    rollouts: Path,
    run: Path,
    method: MergedMethod,
    seed: int,
    threads: int,
) -> None:
    """Merge the ends of `parents`, milestones of the runs of `runs` (run.json), both in the order of `method.of`."""
    torch.set_num_threads(threads)
    # Runs of several seeds differ in what dare drops too.
    method = method.model_copy(update={"seed": method.seed + seed})
    found = zip(method.of, parents, runs, strict=True)
    opened = {name: open_parent(folder, record, model) for name, folder, record in found}
    partial = milestones.with_name(f".{milestones.name}.partial")
    for old in (partial, milestones):
        shutil.rmtree(old, ignore_errors=True)
    for label in ("0", "1"):
        (partial / label).mkdir(parents=True)
    sources.link(model, partial / "0")
    recipe = merged_model.merge(model, method, opened, partial / "1")
    for label in ("0", "1"):
        trained_on.keep(model, partial / label)
        checksums.seal_folder(partial / label)
    partial.rename(milestones)
    tables.write(schemas.SCHEMAS["history"].empty_table(), history, "history")
    tables.write(schemas.SCHEMAS["rollouts"].empty_table(), rollouts, "rollouts")
    record = external.record(milestones / "1", "full") | {"merge": recipe, "trainable_parameters": None}
    checksums.write_json(run, record)


if __name__ == "__main__":
    run(main)
