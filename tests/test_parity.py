"""Parity of two backends: what is compared, differences by hand, and the figure."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from memedynamics import lineage, tables
from memedynamics.config import Adapter
from memedynamics.figure_parity import figure_parity
from memedynamics.methods import ExternalMethod, TrainedMethod
from tiny_study import ROOT, script

RUNS = [("dpo", 1), ("dpo", 2), ("dpo_lf", 1), ("dpo_lf", 2)]
LOSSES = {("dpo", 1): [0.69, 0.5], ("dpo", 2): [0.69, 0.6], ("dpo_lf", 1): [0.69, 0.52], ("dpo_lf", 2): [0.7, 0.6]}


def write(folder: Path) -> dict[str, list[Path]]:
    """Histories and run.json of two methods of two seeds: losses, and a count that only one backend logs."""
    histories, runs = [], []
    for method, seed in RUNS:
        own = "num_tokens" if method == "dpo" else "num_input_tokens_seen"
        rows = [(step, "loss", value) for step, value in enumerate(LOSSES[method, seed], start=1)] + [(2, own, 100.0)]
        frame = pl.DataFrame(rows, schema=["step", "metric", "value"], orient="row")
        run = folder / method / f"seed{seed}"
        run.mkdir(parents=True)
        tables.write(frame, run / "history.parquet", "history")
        (run / "run.json").write_text('{"kind": "adapter", "reference": "base", "steps": {"0": 0, "1": 2}}')
        histories.append(run / "history.parquet")
        runs.append(run / "run.json")
    return {"histories": histories, "runs": runs}


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    folder = tmp_path_factory.mktemp("parity")
    made = folder / "parity.parquet"
    script("parity")(**write(folder), table=made, twins=[("dpo", "dpo_lf")], in_domain="memes")
    return tables.read(made, "parity")


def test_differences_by_hand(frame: pl.DataFrame) -> None:
    """Seed 1: 0.69 − 0.69 = 0 and 0.52 − 0.5 = 0.02; seed 2: 0.7 − 0.69 = 0.01 and 0.6 − 0.6 = 0."""
    apart = frame.filter(pl.col("statistic") == "difference").sort("seed", "step")
    assert apart["value"].to_list() == pytest.approx([0, 0.02, 0.01, 0], abs=1e-12)
    assert set(apart["method"]) == {"dpo_lf"} and set(apart["versus"]) == {"dpo"}
    assert apart["fraction"].to_list() == [0.5, 1, 0.5, 1]
    levels = frame.filter(pl.col("statistic") == "logged")
    assert len(levels) == 8 and set(levels["metric"]) == {"loss"}


def test_twins_differ_in_the_backend_alone() -> None:
    same = {"kind": "dpo", "args": {"beta": 0.3}}
    methods = {
        "dpo": TrainedMethod(**same),
        "lf": TrainedMethod(**same, backend="llamafactory"),
        "other_beta": TrainedMethod(kind="dpo", args={"beta": 0.1}),
        "other_adapter": TrainedMethod(**same, adapter=Adapter(r=8)),
        "sft_lf": TrainedMethod(kind="sft", backend="llamafactory"),
        "foreign": ExternalMethod(kind="external", path="x"),
    }
    assert lineage.twins(methods) == [("dpo", "lf")]


def test_the_figure_shows_both_losses_and_their_difference(frame: pl.DataFrame) -> None:
    figure = figure_parity(frame)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert [list(line.y) for line in lines] == [LOSSES[run] for run in RUNS]
    points = [list(trace.y) for trace in figure.data if trace.mode == "markers"]
    assert points == [pytest.approx([1e-9, 0.02]), pytest.approx([0.01, 1e-9])]


def test_the_reduction_needs_no_torch() -> None:
    code = "import sys, runpy; sys.argv = ['x']; runpy.run_path('workflow/scripts/parity.py', run_name='x'); "
    code += "sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": "workflow"}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
