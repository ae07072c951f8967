"""The paper's words and Snakemake's own report of a finished study, without a network."""

import os
import shutil
import zipfile

import pytest
from playwright.sync_api import sync_playwright

from memedynamics.definitions import definition
from smoke_study import planned, snakemake

pytestmark = pytest.mark.workflow
ANALYSES = "accuracy attention entropy gradients kl likelihood rewards sharpe spectrum summary".split()


def test_the_paper_is_two_jobs_of_a_finished_study(copied):
    assert planned(copied, "paper") == {"paper_figures": 1, "paper_text": 1}
    folder = "results/smoke/paper"
    snakemake(copied, "--cores", "1", f"{folder}/captions.tex", f"{folder}/summary.tex")
    text = (copied / folder / "captions.tex").read_text()
    assert all(f"\\csname memedynamics@{name}\\endcsname" in text for name in ANALYSES)
    assert r"\label{tab:claims}" in (copied / folder / "summary.tex").read_text()
    assert planned(copied, "paper") == {"paper_figures": 1}


@pytest.fixture
def report(copied):
    """The folder of Snakemake's report of a finished study."""
    snakemake(copied, "--report", "report.zip")
    with zipfile.ZipFile(copied / "report.zip") as packed:
        packed.extractall(copied)
    return copied / "report"


@pytest.mark.skipif(not os.environ.get("CI") and not shutil.which("chromium"), reason="no Chromium here")
def test_snakemake_s_own_report(report, copied):
    """It has every figure with its question, and the summary's table; opening it asks no network for anything."""
    asked = []
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((report / "report.html").as_uri())
        page.get_by_text("Figures", exact=True).first.click()
        shown = page.locator("body").inner_text()
        browser.close()
    assert all(definition(name).question in shown for name in ANALYSES)
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    assert {file.name for file in (report / "data/raw").rglob("*.*")} >= {"kl.html", "summary.parquet"}
    tried = [line for line in (copied / "network.txt").read_text().splitlines() if not line.startswith("watched: ")]
    assert not tried
