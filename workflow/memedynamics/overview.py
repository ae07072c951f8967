"""The closing table of a run: each method's accuracy before and after, format and KL, and where the figures are."""

from pathlib import Path

import polars as pl
from rich.console import Group
from rich.table import Table
from rich.text import Text

from memedynamics import tables
from memedynamics.figures import name, ordered
from memedynamics.gather import BASE


def overview(folder: Path) -> Group:
    """The table of the finished study in `folder`, and the paths of its figures, for the terminal."""
    accuracy = tables.read(folder / "analyses/accuracy.parquet", "accuracy")
    kl = tables.read(folder / "analyses/kl.parquet", "kl")
    title = f"\n{accuracy['study'][0]}: val accuracy (%) and KL (nat a response), 95 % intervals over memes"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in ("method", "seed", "before", "after", "in format", "KL in domain", "out of domain"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in _rows(accuracy, kl):
        table.add_row(*row)
    unit = Text("Before: the base model. KL: forward, KL(π0‖π), on the base model's own responses.", style="dim")
    figures = [Text(f"  {path}") for path in sorted((folder / "figures").glob("*.html"))]
    return Group(table, unit, Text("\nFigures:"), *figures)


def _rows(accuracy: pl.DataFrame, kl: pl.DataFrame) -> list[tuple[str, ...]]:
    levels = accuracy.filter((pl.col("split") == "val") & pl.col("versus").is_null())
    before = _share(levels.filter(pl.col("method") == BASE), "accuracy")
    moved = kl.filter(
        (pl.col("direction") == "forward")
        & (pl.col("estimator") == "exact")
        & (pl.col("span") == "all")
        & (pl.col("statistic") == "per_response")
    )
    (in_domain,) = levels["dataset"].unique()
    found = []
    for method in [m for m in ordered(levels["method"].to_list()) if m != BASE]:
        for seed in sorted(levels.filter(pl.col("method") == method)["seed"].unique()):
            run = (pl.col("method") == method) & (pl.col("seed") == seed) & (pl.col("fraction") == 1)
            after, here = levels.filter(run), moved.filter(run)
            val = here.filter((pl.col("dataset") == in_domain) & (pl.col("split") == "val"))
            away = here.filter(pl.col("dataset") != in_domain)
            shares = (before, _share(after, "accuracy"), _share(after, "format_share"))
            found.append((name(method), str(seed), *shares, _nat(val), _nat(away)))
    return found


def _share(rows: pl.DataFrame, statistic: str) -> str:
    """A share in per cent with its interval: `63.8 [60.1, 67.3]`."""
    row = rows.filter(pl.col("statistic") == statistic).row(0, named=True)
    return f"{100 * row['value']:.1f} [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"


def _nat(rows: pl.DataFrame) -> str:
    """KL by dataset, joined where there are several: `0.42`."""
    return " / ".join(f"{value:.2f}" for value in rows.sort("dataset")["value"]) or "-"
