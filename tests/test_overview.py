"""The closing table: a line for every method and seed that fits 100 columns, and errors in one line."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from analysed_study import write
from memedynamics import overview as overview_module
from memedynamics import tables
from synthetic import METHODS, SEEDS

SCRIPT = Path(__file__).parents[1] / "workflow/scripts/overview.py"


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("overview") / "results/synthetic")
    for name in ("kl", "accuracy"):
        (folder / f"figures/{name}.html").parent.mkdir(exist_ok=True)
        (folder / f"figures/{name}.html").touch()
    return folder


def overview(*arguments, cwd, columns=80):
    """The script as a user calls it, from any folder, without PYTHONPATH."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "FORCE_COLOR")}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True, text=True, cwd=cwd, env=clean | {"COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip


@pytest.fixture(scope="session")
def printed(study):
    done = overview("results/synthetic", cwd=study.parents[1])
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def runs(lines):
    """Cells of the first table's lines by (method, seed)."""
    first = itertools.takewhile(lambda line: "trained on" not in line, lines)
    cells = [re.split(r"\s{2,}", line.strip()) for line in first]
    return {(c[0].lower(), int(c[1])): c[2:] for c in cells if len(c) > 2 and c[0].lower() in METHODS}


def test_what_each_run_took_stands_below(study, printed):
    """Of a run its record says no more than the steps: the rest is dashes."""
    begin = next(i for i, line in enumerate(printed) if "trained on" in line)
    steps = [line.split() for line in printed[begin:] if line.split()[:1] and line.split()[0] in METHODS]
    assert [(method, int(seed)) for method, seed, *_ in steps] == [(m, s) for m in METHODS for s in SEEDS]
    assert all(cells[6] == "80" and cells[2] == "–" for cells in steps)


def value(frame, **keys):
    for column, wanted in keys.items():
        frame = frame.filter(pl.col(column).is_null() if wanted is None else pl.col(column) == wanted)
    return frame.row(0, named=True)


def test_a_line_for_every_run(printed):
    assert sorted(runs(printed)) == sorted((method, seed) for method in METHODS for seed in SEEDS)


def test_lines_fit_100_columns_and_nothing_is_cut(printed):
    assert max(map(len, printed)) <= 100
    assert "…" not in "".join(printed)
    assert printed[0].startswith("synthetic: what each method did")


def test_the_numbers_are_the_tables(study, printed):
    """Accuracy of the base and of the end of training on val, with intervals; forward KL there and out of domain."""
    accuracy = tables.read(study / "analyses/accuracy.parquet", "accuracy")
    kl = tables.read(study / "analyses/kl.parquet", "kl")
    val = {"dataset": "memes", "split": "val"}
    exact = {"direction": "forward", "estimator": "exact", "span": "all", "statistic": "per_response", "fraction": 1}
    for (method, seed), cells in runs(printed).items():
        run = {"method": method, "seed": seed}
        shares = [
            value(accuracy, method="base", statistic="accuracy", versus=None, **val),
            value(accuracy, **run, statistic="accuracy", fraction=1, versus=None, **val),
            value(accuracy, **run, statistic="format_share", fraction=1, versus=None, **val),
        ]
        before, after, form = shares
        moved = [value(kl, **run, **exact, **place) for place in (val, {"dataset": "other", "split": "test"})]
        assert cells == [
            f"{100 * before['value']:.1f} [{100 * before['ci_low']:.1f}, {100 * before['ci_high']:.1f}]",
            f"{100 * after['value']:.1f} [{100 * after['ci_low']:.1f}, {100 * after['ci_high']:.1f}]",
            f"{100 * form['value']:.0f}",
            *[f"{one['value']:.2f} [{one['ci_low']:.2f}, {one['ci_high']:.2f}]" for one in moved],
        ]


def test_answers_name_the_methods_that_were_compared(printed):
    """A question about GRPO and DPO is answered by two runs of the study, whatever these are called."""
    said = " ".join(" ".join(printed).split())
    assert "Is GRPO better than DPO?" in said and "GRPO against DPO" in said


def test_a_question_with_several_answers_says_what_each_is_about():
    """One answer: the pairs alone. Two: what was compared stands with its pairs, a relation without any."""
    every = {"accuracy, val memes": ["GRPO against DPO"], "accuracy, test other": ["GRPO against DPO"]}
    assert overview_module._said("yes", every, True) == "yes (GRPO against DPO)"
    assert overview_module._said("yes", {"accuracy, val memes": ["GRPO against DPO"]}, False) == (
        "yes (accuracy, val memes: GRPO against DPO)"
    )
    assert overview_module._said("no", {"accuracy with entropy": [""]}, False) == "no (accuracy with entropy)"


def test_the_figures_paths_are_printed(printed):
    assert [line.split()[-1] for line in printed[-2:]] == [
        f"results/synthetic/figures/{n}.html" for n in ("accuracy", "kl")
    ]


def test_a_wide_terminal_changes_nothing_but_padding(study, printed):
    wide = overview("results/synthetic", cwd=study.parents[1], columns=200).stdout.splitlines()
    assert runs(wide) == runs(printed)


@pytest.mark.parametrize("lost", ["accuracy", "kl"])
def test_a_folder_without_results(lost, study, tmp_path):
    shutil.copytree(study, tmp_path / "half")
    (tmp_path / f"half/analyses/{lost}.parquet").unlink()
    for folder in ("half", "nowhere"):
        done = overview(folder, cwd=tmp_path)
        assert done.returncode == 1 and done.stdout == ""
        assert re.fullmatch(rf"error: {folder}/analyses/\w+\.parquet: no such table\n", done.stderr)


def test_called_without_a_folder(tmp_path):
    done = overview(cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"usage: .*overview\.py results/<study>\n", done.stderr)
