"""Print what a study would cost: each method's schedule and memory, each rule's jobs, GPU-hours and disk."""

from pathlib import Path

from rich.console import Console

from memedynamics import costs, inventory, loads, plan_tables, sources
from memedynamics.config import Study
from memedynamics.job import run
from memedynamics.training import defaults


def main(study: Study, splits: list[tuple[str, str]]) -> None:
    root = Path("results") / study.study
    memes = inventory.memes(study, root, splits)
    rows = {split: found.count for split, found in memes.items()}
    pairs = inventory.pairs(root)
    correct = inventory.correct_samples(study, root)
    schedules = inventory.schedules(study, defaults(), rows[study.in_domain, "train"], pairs, correct)
    known = costs.read(Path(f"{root}-trial") / "costs.json")
    model = sources.find(study.base_model, root / "model")
    console = Console(width=plan_tables.WIDTH)
    console.print(plan_tables.data(memes))
    console.print(plan_tables.methods(study, schedules, model))
    console.print(plan_tables.rules(loads.planned(study, rows, schedules), known))
    for line in plan_tables.notes(study, memes, pairs, model, known):
        console.print(line, soft_wrap=True, markup=False)


if __name__ == "__main__":
    run(main)
