"""The paper's words: a caption a figure and a panel, and the summary's tables, of a made-up study."""

import json
import os
import re
import shutil
import subprocess

import pytest

from analysed_study import script, write
from memedynamics import tables
from memedynamics.paper_captions import captions
from memedynamics.paper_tables import summary_tables
from synthetic import METHODS, SEEDS

NAMES = ("accuracy", "kl", "summary")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("paper"), resamples=50)
    for name in NAMES:
        notes = ["a note of <b>users</b> with 50% & \\input{x}"]
        script(f"figure_{name}").main(folder / f"analyses/{name}.parquet", folder / f"figures/{name}.html", notes)
    script("paper_text").main(
        [folder / f"figures/{name}.json" for name in NAMES],
        [folder / f"analyses/{name}.parquet" for name in NAMES],
        folder / "captions.tex",
        folder / "summary.tex",
    )
    return folder


def macros(text):
    """The captions by name, as \\figurecaption finds them."""
    found = re.split(r"\\expandafter\\def\\csname memedynamics@(\w+)\\endcsname", text)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def test_a_caption_for_every_figure_and_panel(study):
    found = macros((study / "captions.tex").read_text())
    assert {*NAMES, *(f"accuracy_{letter}" for letter in "abcde"), "kl_h"} <= set(found)
    assert all(text.strip().startswith("{") and text.count("{") == text.count("}") for text in found.values())
    assert found["kl_a"].startswith(r"{Forward KL(\ensuremath{\pi}\textsubscript{0}")
    assert "How far each method moved from the base model" in found["kl"]
    assert "moved furthest from the base" in found["kl"]


def test_users_words_are_printed_not_run(study):
    text = (study / "captions.tex").read_text()
    assert r"50\% \& \textbackslash{}input\{x\}" in text and r"\input{x}" not in text
    assert r"\textless{}b\textgreater{}users" in text


def test_the_summary_has_a_row_a_run_with_intervals_and_units(study):
    text = (study / "summary.tex").read_text()
    runs, claims = text.split(r"\label{tab:claims}")
    rows = [line for line in runs.splitlines() if re.match(r"\w+ & \d", line)]
    assert len(rows) == len(METHODS) * len(SEEDS)
    assert all(re.search(r"& \d+\.\d \{\[\}\d+\.\d, \d+\.\d\]", row) for row in rows)
    assert r"(\%)" in runs and "(nat a response)" in runs and r"\label{tab:summary}" in runs
    assert "Is GRPO better than DPO?" in claims and "not decided" in claims
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}")


def test_one_table_says_the_same_twice(study):
    found = {name: tables.read(study / f"analyses/{name}.parquet", name) for name in NAMES}
    drawn = {name: json.loads((study / f"figures/{name}.json").read_text()) for name in NAMES}
    assert captions(drawn, found) == (study / "captions.tex").read_text()
    assert summary_tables(found) == (study / "summary.tex").read_text()


def test_latex_takes_it(study):
    if not shutil.which("pdflatex"):
        assert not os.environ.get("CI"), "CI must have Debian's texlive-latex-base and texlive-latex-recommended"
        pytest.skip("no LaTeX here")
    shown = "".join(rf"\par\figurecaption{{{name}}}" for name in macros((study / "captions.tex").read_text()))
    page = rf"\documentclass{{article}}\usepackage{{booktabs,array}}\input{{captions}}\begin{{document}}{shown}"
    (study / "page.tex").write_text(
        page + r"\begin{figure}\caption{\figurecaption{kl}}\end{figure}\input{summary}\end{document}"
    )
    done = subprocess.run(["pdflatex", "-halt-on-error", "page.tex"], cwd=study, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
