"""The closing table of a study: what each run did to accuracy, format and distance from the base, and its figures."""

import json
from collections.abc import Iterable
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from memedynamics import checksums, tables
from memedynamics.errors import InputError
from memedynamics.figures import ordered
from memedynamics.outcomes import summary
from memedynamics.verdicts import claims_table

WIDTH = 100  # columns
EFFORT = ("method", "seed", "prompts", "hateful", "correct at base", "epochs", "steps", "tokens", "FLOPs")


def show(folder: Path, console: Console | None = None) -> None:
    """Print the closing table of the study in `folder` and where its figures are.

    Raises InputError where the analyses are missing.
    """
    console = console or Console(width=WIDTH, highlight=False)
    checksums.check_inputs([folder / "analyses", *(folder / "runs").glob("*/seed*/run.json")])
    accuracy = tables.read(folder / "analyses/accuracy.parquet", "accuracy")
    kl = tables.read(folder / "analyses/kl.parquet", "kl").filter(pl.col("reference") == "base")
    if accuracy.is_empty():
        raise InputError(f"{folder}/analyses/accuracy.parquet: has no rows; run the workflow again")
    console.print(_table(summary(accuracy, kl), accuracy["study"][0]))
    console.print("95 % intervals over prompts; val of the in-domain dataset; KL(base‖policy) on the base's samples.")
    console.print(_training((folder / "runs").glob("*/seed*/run.json")))
    console.print(answers(tables.read(folder / "analyses/summary.parquet", "summary")))
    for figure in sorted((folder / "figures").glob("*.html")):
        console.print(f"figure  {figure}", soft_wrap=True)
    for page in folder.glob("report/index.html"):
        console.print(f"report  {page}", soft_wrap=True)


def _training(runs: Iterable[Path]) -> Table:
    table = Table(title="\nwhat each was trained on", title_justify="left", title_style="bold", box=None)
    for column in EFFORT:
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in trained(runs):
        table.add_row(*row)
    return table


def trained(runs: Iterable[Path]) -> list[list[str]]:
    """What each of `runs`, files run.json, was trained on and what it took, a row of EFFORT each; dashes where it was
    trained elsewhere.
    """
    found = {(file.parents[1].name, file.parent.name): json.loads(file.read_text()) for file in runs}
    return [
        [method, folder.removeprefix("seed"), *_effort(found[method, folder])]
        for method in ordered([method for method, _ in found])
        for folder in sorted(folder for name, folder in found if name == method)
    ]


def answers(frame: pl.DataFrame) -> Table:
    """The study's questions and what its data says to the claims behind them: a line a verdict, of which methods."""
    table = Table(title="\nwhat the data says", title_justify="left", title_style="bold", box=None)
    for column in ("question", "answer"):
        table.add_column(column)
    asked, said = "", {}
    for line in claims_table(frame):
        asked = line.question or asked
        said.setdefault(asked, {}).setdefault(line.verdict, {}).setdefault(line.about, []).append(line.compared)
    for question, verdicts in said.items():
        whole = len(verdicts) == 1
        table.add_row(question, "\n".join(_said(verdict, found, whole) for verdict, found in verdicts.items()))
    return table


def _said(verdict: str, found: dict[str, list[str]], whole: bool) -> str:
    """`verdict` with the pairs of methods it was `found` for, by what was compared unless it is the `whole` answer."""
    pairs = {what: ", ".join(filter(None, compared)) for what, compared in found.items()}
    if whole:
        named = ", ".join(dict.fromkeys(pair for compared in found.values() for pair in compared if pair))
    else:
        named = "; ".join(f"{what}: {pair}" if pair else what for what, pair in pairs.items())
    return f"{verdict} ({named})" if named else verdict


def _effort(run: dict) -> list[str]:
    patterns = {
        "num_prompts": "{:,}", "label_balance": "{:.1%}", "mean_num_correct": "{:.1f}", "epochs": "{:.2f}",
        "total_steps": "{:,}", "tokens": "{:,}", "flops": "{:.2g}",
    }  # fmt: skip
    return ["–" if run.get(key) is None else pattern.format(run[key]) for key, pattern in patterns.items()]


def _table(rows: pl.DataFrame, study: str) -> Table:
    table = Table(title=f"{study}: what each method did", title_justify="left", title_style="bold", box=None)
    heads = {
        "method": "method", "seed": "seed", "accuracy before": "accuracy\nbefore (%)",
        "accuracy after": "accuracy\nafter (%)", "format": "format\n(%)",
        "KL in domain": "KL in domain\n(nat/response)",
        "KL out of domain": "KL out of domain\n(nat/response)",
    }  # fmt: skip
    for name, head in heads.items():
        side, folds = "left" if name == "method" else "right", name in ("method", "KL out of domain")
        table.add_column(head, justify=side, no_wrap=not folds, overflow="fold")  # long names of methods and sets
    for row in _fitting(rows).select(list(heads)).rows():
        table.add_row(*("–" if cell is None else str(cell) for cell in row))
    return table


def _fitting(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` (`summary`) for a terminal: format without its interval, the name of a set above its number."""
    return rows.with_columns(
        pl.col("format").str.replace(r" \[.*", ""),
        pl.col("KL out of domain").str.replace_all(": ", ":\n", literal=True),
    )
