"""What each run did, for the terminal, the page and the paper: which set each number out of domain is of."""

import io

import polars as pl
import pytest
from rich.console import Console

from memedynamics import outcomes, overview, paper_tables, report_sections

THIRD = "2.00 [1.00, 3.00]"


def rows(statistic: str, value: float, dataset: str, split: str, *runs: tuple[str, int | None]) -> list[dict]:
    interval = {"value": value, "ci_low": value - 1, "ci_high": value + 1}
    keys = {"direction": "forward", "estimator": "exact", "span": "all", "versus": None, "reference": "base"}
    return [
        {"study": "s", "method": method, "seed": seed, "fraction": float(method != "base"), "dataset": dataset,
         "split": split, "statistic": statistic, **keys, **interval}
        for method, seed in runs
    ]  # fmt: skip


BASE, SFT, DPO = ("base", None), ("sft", 1), ("dpo", 1)


@pytest.fixture
def accuracy():
    found = [rows(name, 50.0, "memes", "val", BASE, SFT, DPO) for name in ("accuracy", "format_share")]
    return pl.DataFrame(sum(found, []), infer_schema_length=None).with_columns(pl.col("^value|ci_.*$") / 100)


def kl(*sets: list[dict]) -> pl.DataFrame:
    return pl.DataFrame(sum(sets, rows("per_response", 5.0, "memes", "val", SFT, DPO)), infer_schema_length=None)


@pytest.fixture
def two():
    """Two sets out of domain; on one of them SFT was not scored."""
    return kl(
        rows("per_response", 4.0, "other", "test", DPO), rows("per_response", 2.0, "a-third", "test", SFT, DPO)
    )  # fmt: skip


def column(found, name="KL out of domain"):
    return dict(found.select("method", name).rows())


def test_one_set_has_no_name(accuracy):
    found = outcomes.summary(accuracy, kl(rows("per_response", 2.0, "other", "test", SFT)))
    assert column(found) == {"sft": THIRD, "dpo": None}


def test_of_several_sets_each_line_says_which_and_none_shifts(accuracy, two):
    assert column(outcomes.summary(accuracy, two)) == {
        "sft": f"a-third: {THIRD}\nother: –",
        "dpo": f"a-third: {THIRD}\nother: 4.00 [3.00, 5.00]",
    }


def test_splits_of_one_set_are_told_apart(accuracy):
    found = kl(*(rows("per_response", 2.0, "other", split, SFT, DPO) for split in ("test", "train")))
    assert column(outcomes.summary(accuracy, found))["sft"] == f"other test: {THIRD}\nother train: {THIRD}"


def test_the_page_and_the_paper_say_it_with_the_interval_of_format(accuracy, two):
    page = report_sections.outcomes(accuracy, two)
    (sft,) = [row for row in page.rows if row[0] == "sft"]
    assert sft[page.heads.index("format (%)")] == "50 [49, 51]" and f"a-third: {THIRD}\nother: –" in sft
    paper = paper_tables._runs(accuracy, two)
    assert "50 {[}49, 51]" in paper and r"a-third: 2.00 {[}1.00, 3.00] \\ other: --" in paper


def printed(accuracy, found):
    console = Console(width=overview.WIDTH, highlight=False, record=True, file=io.StringIO())
    console.print(overview._table(outcomes.summary(accuracy, found), "s"))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 100 and "…" not in "".join(lines)
    return lines[next(i for i, line in enumerate(lines) if line.split()[:1] == ["sft"]) :]


def test_a_terminal_has_room_for_it(accuracy, two):
    lines = printed(accuracy, two)
    assert [line.split()[-1] for line in lines[:4]] == ["a-third:", "3.00]", "other:", "–"]
    assert "50 [" not in lines[0]


def test_a_long_name_folds_and_leaves_its_number_whole(accuracy):
    found = kl(*(rows("per_response", 2.0, name, "test", SFT, DPO) for name in ("other", "a-long-name-" * 4)))
    assert any(THIRD in line for line in printed(accuracy, found)[2:4])
