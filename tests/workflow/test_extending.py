"""docs/extending.md, followed to the letter on a finished study: the new table and figure appear."""

import re
import textwrap

import polars as pl
import pytest

from .conftest import HERE, planned, snakemake

pytestmark = pytest.mark.workflow

STEP = re.compile(r"(at the end of )?(?:the list `(\w+)` in )?`([\w/]+\.(?:py|smk))`.*?```python\n(.*?)```", re.DOTALL)


def steps():
    """(file, list's name or "", whether to append, code) of every code block, in order."""
    text = (HERE / "docs/extending.md").read_text()
    found = [(file, name, bool(end), textwrap.dedent(code)) for end, name, file, code in STEP.findall(text)]
    assert len(found) == text.count("```python")
    return found


def follow(folder):
    for file, name, append, code in steps():
        path = folder / file
        if name:
            listed = re.search(rf"^{name} = \[.*?(?=\n?\]$)", path.read_text(), re.MULTILINE | re.DOTALL)
            last = listed.group().rstrip(",") + ", " + code.strip()
            path.write_text(path.read_text().replace(listed.group(), last))
        elif append:
            path.write_text(path.read_text() + "\n\n" + code)
        else:
            assert not path.exists(), f"{file} is there already"
            path.write_text(code)


def test_an_analysis_takes_under_80_lines():
    assert sum(len(code.strip().splitlines()) for *_, code in steps()) < 80


def test_a_new_analysis_appears_and_nothing_else_runs(copied):
    follow(copied)
    assert planned(copied) == {"length": 1, "figure_length": 1}
    snakemake(copied, "--cores", "1", "length")
    found = pl.read_parquet(copied / "results/smoke/analyses/length.parquet")
    methods, units = (set(found[column].cast(pl.String)) for column in ("method", "unit"))
    assert methods == {"sft", "dpo", "grpo"} and units == {"token"}
    assert (found["ci_low"] <= found["value"]).all() and (found["value"] <= found["ci_high"]).all()
    snakemake(copied, "--cores", "1")
    assert "plotly" in (copied / "results/smoke/figures/length.html").read_text()
    assert planned(copied) == {}
