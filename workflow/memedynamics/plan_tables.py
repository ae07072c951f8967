"""The plan as tables for the terminal."""

from pathlib import Path

from rich.table import Table

from memedynamics import checkpoints
from memedynamics.config import Study
from memedynamics.costs import Cost, needed
from memedynamics.plan import GB, Load, Schedule, memory


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    return table


def data(rows: dict[tuple[str, str], int], built: bool, paired: int) -> Table:
    """Memes by dataset and split, and how many prompts train."""
    table = _table("\nMemes", "dataset", "split", "memes")
    for (name, split), count in rows.items():
        table.add_row(name, split, f"{count:,}" if count else "not found")
    table.add_row("preference pairs", "train", f"{paired:,}" if built else f"at most {paired:,}")
    return table


def methods(study: Study, schedules: dict[str, Schedule], model: Path | None) -> Table:
    """Each method's schedule, trainable parameters, and memory without activations."""
    columns = ("steps/epoch", "steps", "warm-up", "batch", "saved at", "trainable", "memory")
    table = _table("\nTraining, one run each", "method", *columns)
    for name, plan in schedules.items():
        adapter = study.methods[name].adapter or study.adapter
        trainable, weights = "?", "?"
        if model:
            count = checkpoints.lora_parameters(model, adapter.r, adapter.layers)
            trainable = f"{count / 1e6:.2f} M"
            whole = memory(checkpoints.count_parameters(model) + count, count, study.base_model.dtype)
            weights = f"{whole / GB:.1f} GB"
        saves = " ".join(str(step) for step in dict.fromkeys(plan.saves.values()))
        numbers = (plan.steps_per_epoch, plan.total_steps, plan.warmup_steps, plan.effective_batch)
        table.add_row(name, *(f"{number:,}" for number in numbers), saves, trainable, weights)
    return table


def rules(loads: list[Load], costs: dict[str, Cost]) -> Table:
    """Each rule's jobs and work, and hours and disk where a trial has measured them."""
    table = _table("\nWork, whole study", "rule", "jobs", "work", "", "GPU-hours", "disk")
    total, disk = 0.0, 0.0
    for load in loads:
        need = needed(load, costs[load.rule]) if load.rule in costs else None
        hours = "-" if not load.gpu else f"{need.hours:,.2f}" if need else "?"
        table.add_row(
            load.rule, f"{load.jobs:,}", f"{load.units:,}", load.unit, hours, size(need.bytes) if need else "?"
        )
        total, disk = total + (need.hours if need and load.gpu else 0), disk + (need.bytes if need else 0)
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


def notes(costs: dict[str, Cost], model: Path | None) -> list[str]:
    """What the reader should know about the numbers above."""
    lines = ["\nMemory is weights, gradients and optimiser state; activations come on top."]
    if model is None:
        lines.append("Parameters are unknown until the base model is here: run `snakemake prefetch --cores 1`.")
    if not costs:
        lines.append("GPU-hours and disk are unknown until a trial: `snakemake --cores all --config trial=true`.")
    return lines
