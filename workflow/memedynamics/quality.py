"""What is in a dataset: counts against the published ones, label balance, and what recurs within and across splits."""

from itertools import combinations

import polars as pl
from rich.table import Table
from rich.text import Text

SCHEMA = {
    "dataset": pl.String,
    "split": pl.String,
    "statistic": pl.String,
    "value": pl.Float64,
    "expected": pl.Float64,
    "unit": pl.String,
}
SHARED = {"ids": "id", "texts": "text", "images": "image_sha256"}


def summary(
    dataset: str,
    splits: dict[str, pl.DataFrame],
    rejected: pl.DataFrame,
    published: dict[str, tuple[int, int | None]],
) -> pl.DataFrame:
    """The `quality` table of the `data` tables in `splits`; `published` gives (rows, hateful rows) where known.

    Within a split: rows, hateful rows and their share, rejected rows in all and by kind of reason, rows whose
    picture or text occurred before, and texts that occur with both labels. Across two splits `a+b`: rows of b whose
    id, text or picture occurs in a, and their share of b. Texts are compared without case and spacing.
    """
    tables = {split: _comparable(table) for split, table in splits.items() if not table.is_empty()}
    found: list[tuple[str, str, float, float | None, str]] = []
    for split, table in tables.items():
        lost = rejected.filter(pl.col("split") == split)
        found += [(split, *entry) for entry in _within(table, lost, *published.get(split, (None, None)))]
    for (first, a), (second, b) in combinations(tables.items(), 2):
        found += [(f"{first}+{second}", *entry) for entry in _across(a, b)]
    return pl.DataFrame([(dataset, *entry) for entry in found], SCHEMA, orient="row")


def _comparable(table: pl.DataFrame) -> pl.DataFrame:
    text = pl.col("text").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    return table.with_columns(text)


def _within(
    table: pl.DataFrame, lost: pl.DataFrame, rows: int | None, hateful: int | None
) -> list[tuple[str, float, float | None, str]]:
    share = hateful / rows if rows and hateful is not None else None
    captioned = table.filter(pl.col("text") != "")
    both = captioned.group_by("text").agg(pl.col("label").n_unique()).filter(pl.col("label") > 1)
    kinds = lost.group_by(kind=pl.col("reason").str.split(":").list.first()).len().sort("kind")
    return [
        ("rows", len(table), rows, "rows"),
        ("hateful", table["label"].sum(), hateful, "rows"),
        ("hateful_share", table["label"].mean(), share, "1"),
        ("duplicate_images", _repeats(table["image_sha256"]), None, "rows"),
        ("duplicate_texts", _repeats(captioned["text"]), None, "rows"),
        ("texts_with_both_labels", len(both), None, "texts"),
        ("rejected", len(lost), None, "rows"),
        *[(f"rejected: {kind}", count, None, "rows") for kind, count in kinds.iter_rows()],
    ]


def _repeats(column: pl.Series) -> int:
    return len(column) - column.n_unique()


def _across(a: pl.DataFrame, b: pl.DataFrame) -> list[tuple[str, float, float | None, str]]:
    entries: list[tuple[str, float, float | None, str]] = []
    for what, column in SHARED.items():
        seen = a.filter(pl.col(column) != "")[column].unique().implode()
        count = int(b[column].is_in(seen).sum())
        entries += [(f"shared_{what}", count, None, "rows"), (f"shared_{what}_share", count / len(b), None, "1")]
    return entries


def overview(found: pl.DataFrame) -> Table:
    """The `quality` tables of all datasets as one table to print: a line a split, published counts in brackets."""
    note = "(…): published count, missing: fewer rows than that, shared with train: id, text or picture that train has"
    table = Table(title="Data", caption=note)
    for column in ("dataset", "split"):
        table.add_column(column)
    for column in ("rows", "missing", "hateful", "share", "rejected", "twin pictures", "ids", "texts", "pictures"):
        shared = " shared\nwith train" if column in ("ids", "texts", "pictures") else ""
        table.add_column(column + shared, justify="right")
    for (dataset, split), part in found.group_by("dataset", "split", maintain_order=True):
        if "+" not in split:
            values = {row["statistic"]: row for row in part.iter_rows(named=True)}
            pair = found.filter(dataset=dataset, split=f"train+{split}")
            table.add_row(dataset, split, *_cells(values), *_shared(pair))
    return table


def _cells(values: dict[str, dict]) -> list[str]:
    def count(name: str) -> str:
        expected = values[name]["expected"]
        return f"{values[name]['value']:.0f}" + ("" if expected is None else f" ({expected:.0f})")

    rows, share = values["rows"], f"{values['hateful_share']['value']:.1%}"
    missing = "" if rows["expected"] is None else f"{max(rows['expected'] - rows['value'], 0):.0f}"
    return [count("rows"), missing, count("hateful"), share, count("rejected"), count("duplicate_images")]


def _shared(pair: pl.DataFrame) -> list[str]:
    values = dict(pair.select("statistic", "value").iter_rows())
    return [f"{values[f'shared_{what}']:.0f}" if values else "" for what in SHARED]


def losses(rejected: pl.DataFrame) -> Table:
    """The `rejected` tables of all datasets as one table to print: a line a kind of reason, with its first row."""
    table = Table(title="Rows left out")
    for column in ("dataset", "split", "reason", "first"):
        table.add_column(column, overflow="fold")
    table.add_column("rows", justify="right")
    kind = pl.col("reason").str.split(":").list.first()
    detail = pl.col("reason").str.strip_prefix(kind)
    first = pl.format("{} row {}{}", "source", "row", detail)
    lines = rejected.with_columns(kind=kind, first=first)
    grouped = lines.group_by("dataset", "split", "kind", maintain_order=True)
    for line in grouped.agg(pl.col("first").first(), pl.len().alias("rows")).iter_rows():
        # Names and reasons come from files: brackets in them are text, not rich's markup.
        table.add_row(*[Text(str(cell)) for cell in line])
    return table
