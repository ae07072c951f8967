"""The plan as tables for the terminal."""

from pathlib import Path

from rich.table import Table

from memedynamics import checkpoints, parameters
from memedynamics.config import Study
from memedynamics.costs import Cost, needed
from memedynamics.inventory import Memes
from memedynamics.loads import Load
from memedynamics.methods import WITH_REFERENCE, TrainedMethod
from memedynamics.plan import BYTES, Schedule, memory

WIDTH = 100  # columns; the plan goes through a pipe into its log, so the terminal's own are not known
WORDS = {"split", "known from", "saved at step", "unit"}  # columns of words; the others hold numbers


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        words = not number or column in WORDS
        table.add_column(column, justify="left" if words else "right", no_wrap=not number)
    return table


def data(rows: dict[tuple[str, str], Memes]) -> Table:
    """Memes by dataset and split, and where the numbers come from."""
    table = _table("\nMemes", "dataset", "split", "memes", "known from")
    for (name, split), found in rows.items():
        table.add_row(name, split, f"{found.count:,}" if found.count else "?", found.known)
    return table


def methods(study: Study, schedules: dict[str, Schedule], model: Path | None) -> Table:
    """Each method's schedule, trainable parameters, memory without activations, and the size of a milestone."""
    columns = ("steps/epoch", "steps", "warm-up", "batch", "trainable", "memory", "a save", "saved at step")
    table = _table("\nTraining, each run", "method", *columns)
    for name, plan in schedules.items():
        needs = _needs(study, study.methods[name], model) if model else ("?", "?", "?")
        saves = " ".join(f"{step:,}" for step in dict.fromkeys(plan.saves.values()))
        numbers = (plan.steps_per_epoch, plan.total_steps, plan.warmup_steps, plan.effective_batch)
        table.add_row(name, *(f"{number:,}" for number in numbers), *needs, saves)
    return table


def _needs(study: Study, method: TrainedMethod, model: Path) -> tuple[str, str, str]:
    """What `method` trains of the model in `model`: parameters, memory, bytes of a milestone."""
    adapter, whole = method.adapter or study.adapter, checkpoints.count_parameters(model)
    count, full = parameters.trainable_parameters(model, adapter), adapter.kind == "full"
    quantised = parameters.linear_parameters(model) if adapter.kind == "qlora" else 0
    taken = memory(whole, count, study.base_model.dtype, quantised, full, method.kind in WITH_REFERENCE)
    saved = whole * BYTES[checkpoints.stored_dtype(model)] if full else count * BYTES["float32"]
    return f"{count / 1e6:.2f} M", size(taken), size(saved)


def rules(loads: list[Load], costs: dict[str, Cost]) -> Table:
    """Each rule's jobs and work, and hours and disk where a trial has measured them."""
    table = _table("\nWork, whole study", "rule", "jobs", "work", "unit", "GPU-hours", "disk")
    total, disk = 0.0, 0.0
    for load in loads:
        need = needed(load, costs[load.rule]) if load.rule in costs else None
        hours = "-" if not load.gpu else f"{need.hours * load.gpu:,.2f}" if need else "?"
        table.add_row(
            load.rule, f"{load.jobs:,}", f"{load.units:,}", load.unit, hours, size(need.bytes) if need else "?"
        )
        total, disk = total + (need.hours * load.gpu if need else 0), disk + (need.bytes if need else 0)
    if costs:
        table.add_row("all", "", "", "", f"{total:,.2f}", size(disk), style="bold")
    return table


def speed(costs: dict[str, Cost]) -> Table:
    """What the trial measured, by rule."""
    table = _table("\nMeasured in the trial", "rule", "start-up s/job", "ms/unit", "tokens/s")
    for rule, cost in costs.items():
        rate = f"{cost.tokens / cost.seconds:,.0f}" if cost.tokens and cost.seconds else "-"
        table.add_row(rule, f"{cost.startup:.1f}", f"{1000 * cost.seconds:,.1f}", rate)
    return table


def size(count: float) -> str:
    """Bytes for people: `3.2 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.2f} GB"


def notes(
    study: Study, rows: dict[tuple[str, str], Memes], pairs: int | None, model: Path | None, costs: dict[str, Cost]
) -> list[str]:
    """What the numbers rest on, and what to run to know them better; `pairs` is None until they are built."""
    lines = ["", "Memory: weights, gradients and optimiser state; activations come on top."]
    if pairs is None:
        lines.append("Steps: as if every train prompt gave a preference pair; fewer once the pairs are built.")
    else:
        lines.append(f"Steps: {pairs:,} preference pairs are built.")
    for name in dict.fromkeys(name for (name, _), found in rows.items() if found.known in ("published", "not found")):
        source = study.datasets[name]
        where = f"in {source.root}; put its files there" if source.root else "here; run `prefetch`"
        lines.append(f"Data: {name} is not {where}.")
    if model is None and study.base_model.source == "demo":
        lines.append("Parameters, memory: unknown until the demo's model is made: run `base_model` in place of `plan`.")
    elif model is None:
        lines.append("Parameters, memory: unknown until the base model is here: run `prefetch` in place of `plan`.")
    if not costs:
        lines.append("GPU-hours, disk: unknown until a trial: run `--config trial=true` in place of `plan`.")
    return lines
