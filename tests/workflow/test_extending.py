"""docs/extending.md, followed to the letter on a finished study: the new table and figure appear."""

import re
import textwrap

import polars as pl
import pytest

from smoke_study import HERE, planned, snakemake

pytestmark = pytest.mark.workflow

STEP = re.compile(r"(at the end of )?`([\w/]+\.(?:py|smk))`.*?```python\n(.*?)```", re.DOTALL)


def steps():
    """(file, whether to append, code) of every code block, in order."""
    text = (HERE / "docs/extending.md").read_text()
    found = [(file, bool(end), textwrap.dedent(code)) for end, file, code in STEP.findall(text)]
    assert len(found) == text.count("```python")
    return found


def follow(folder):
    for file, append, code in steps():
        path = folder / file
        assert path.exists() == append, file
        path.write_text((path.read_text() + "\n\n" if append else "") + code)


def test_an_analysis_takes_under_80_lines():
    assert sum(len(code.strip().splitlines()) for *_, code in steps()) < 80


def test_a_new_analysis_appears_and_nothing_else_runs(copied):
    follow(copied)
    assert planned(copied) == {"length": 1, "figure_length": 1, "report_index": 1}
    snakemake(copied, "--cores", "1", "length")
    found = pl.read_parquet(copied / "results/smoke/analyses/length.parquet")
    methods, units = (set(found[column].cast(pl.String)) for column in ("method", "unit"))
    assert methods == {"sft", "dpo", "grpo"} and units == {"token"}
    assert (found["ci_low"] <= found["value"]).all() and (found["value"] <= found["ci_high"]).all()
    snakemake(copied, "--cores", "1")
    assert "plotly" in (copied / "results/smoke/figures/length.html").read_text()
    assert '<section id="length">' in (copied / "results/smoke/report/index.html").read_text()
    assert planned(copied) == {}
