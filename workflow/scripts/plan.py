"""Print what a study would cost: each method's schedule and memory, each rule's jobs, GPU-hours and disk."""

from pathlib import Path

from rich.console import Console

from memedynamics import checkpoints, costs, inventory, plan, plan_tables
from memedynamics.config import Study
from memedynamics.job import run
from memedynamics.training import defaults


def main(study: Study, splits: list[tuple[str, str]]) -> None:
    root = Path("results") / study.study
    rows = inventory.memes(study, root, splits)
    train = rows[study.in_domain, "train"]
    paired = inventory.pairs(root, train)
    schedules = inventory.schedules(study, defaults(), train, paired)
    loads = plan.loads(study, rows, schedules)
    known = costs.read(Path(f"{root}-trial") / "costs.json")
    model = checkpoints.find(study.base_model, root / "model")
    console = Console()
    console.print(plan_tables.data(rows, (root / "preferences.parquet").exists(), paired))
    console.print(plan_tables.methods(study, schedules, model))
    console.print(plan_tables.rules(loads, known))
    for line in plan_tables.notes(known, model):
        console.print(line)


if __name__ == "__main__":
    run(main)
