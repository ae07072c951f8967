"""A trial's last job: what each rule cost per unit of work; prints what the whole study would take."""

from pathlib import Path

from rich.console import Console

from memedynamics import costs, inventory, loads, plan_tables, trial
from memedynamics.config import Study
from memedynamics.job import run
from memedynamics.training import defaults


def main(study: Study, splits: list[tuple[str, str]], root: Path, costs_file: Path) -> None:
    whole = Path("results") / study.study
    rows = {split: found.count for split, found in inventory.memes(study, whole, splits).items()}
    found = inventory.pairs(whole), inventory.correct_samples(study, whole)
    schedules = inventory.schedules(study, defaults(), rows[study.in_domain, "train"], *found)
    measured = trial.measure(root, study, {name: found.effective_batch for name, found in schedules.items()})
    costs.write(measured, costs_file)
    console = Console(width=plan_tables.WIDTH)
    console.print(plan_tables.speed(measured))
    console.print(plan_tables.rules(loads.planned(study, rows, schedules), measured))


if __name__ == "__main__":
    run(main)
