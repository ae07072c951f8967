"""The live view in a browser: what it shows, how it follows, and that hostile text stays text."""

import shutil
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import expect

import watched_study
from browser import chromium, faults
from memedynamics import living
from memedynamics.watch_server import Server
from memedynamics.watch_state import state
from watched_study import HOSTILE, METHOD, STAGES, put

WEB = Path(__file__).parents[1] / "workflow/web"
SIZES = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 390, "height": 844}}
SOON = 8000  # ms


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def this_process_has_the_study():
    """It is younger than the study."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(living, "SLACK", 3600.0)
        yield


@contextmanager
def serving(study):
    with Server(partial(state, study, study.parents[1], STAGES), WEB) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def opening(server, browser):
    """Opens the page; what its console and its requests were is checked at the end."""
    said, asked, address = [], [], f"http://127.0.0.1:{server.server_port}/"
    contexts = []

    def open_page(size="wide"):
        contexts.append(browser.new_context(viewport=SIZES[size]))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.locator("#charts .main-svg").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


@pytest.fixture(scope="module")
def opened_still(browser, tmp_path_factory):
    """Opens the page of a study in which nothing happens."""
    study = watched_study.write(tmp_path_factory.mktemp("still"), time.time())
    with serving(study) as server, opening(server, browser) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def still(opened_still):
    """Its page on a wide screen, which is left as it is."""
    return opened_still()


@pytest.fixture
def study(tmp_path):
    return watched_study.write(tmp_path, time.time())


@pytest.fixture
def server(study):
    with serving(study) as server:
        yield server


@pytest.fixture
def opened(server, browser):
    with opening(server, browser) as open_page:
        yield open_page


def test_it_shows_the_study(still):
    page = still
    assert page.title() == "demo: running"
    assert page.locator("#how").inner_text() == "running"
    stages = [row.inner_text().split() for row in page.locator("#stages tbody tr").all()]
    assert stages[0] == "data 2 of 2 15 s".split() and stages[1] == "training 1 of 3 1 30 s".split()
    assert stages[3] == "all 3 of 9 1 1".split()
    assert page.locator("#eta").inner_text().startswith("Time to go: at least ")
    assert "train_grpo\tgrpo/1\t" in page.locator("#jobs").inner_text()
    runs = page.locator("#runs tbody tr").all_inner_texts()
    assert runs[0].split("\t")[:3] == ["SFT, seed 1", "finished, 20 steps", "1.05"]
    assert [cell.strip() for cell in runs[1].split("\t")] == ["GRPO, seed 1", "10 of 40", "0.1", "1", "0.1", "30 s"]
    assert page.locator("#charts h3").all_inner_texts() == ["loss", "reward", "KL to the reference (nat)"]
    assert page.locator("#chart-loss .scatterlayer .trace").count() == 2
    label = page.locator("#chart-loss").get_attribute("aria-label")
    assert label == "loss by step; last values: SFT, seed 1 1.05; GRPO, seed 1 0.1"


def test_hostile_text_is_text(still):
    failures = still.inner_text("#failures")
    assert f"score (method={METHOD}, seed=1): failed 2 times, tried again once; given up" in failures
    assert still.inner_text("#failures pre").splitlines()[-2:] == [HOSTILE, "error: odd batch"]
    assert still.locator("main script, main img").count() == 0


def test_hostile_names_of_runs_are_text(study, opened):
    watched_study.train(study, f"train_sft/{METHOD}/1", time.time(), 4)
    page = opened()
    assert f"{METHOD}, seed 1" in page.inner_text("#runs")
    page.hover("#chart-loss .nsewdrag", position={"x": 30, "y": 20})
    assert page.locator("main script, main img").count() == 0


def test_it_follows(study, opened):
    """A step, a finished job and the end of the run appear without a click; what the reader opened stays as it was."""
    page, log = opened(), study.parents[1] / ".snakemake/log/run.snakemake.log"
    page.locator("summary").click()
    watched_study.train(study, "train_grpo/grpo/1", time.time(), 20)
    put(log, log.read_text() + "Finished jobid: 4 (Rule: train_sft)\n")
    expect(page.locator("#runs")).to_contain_text("20 of 40", timeout=SOON)
    expect(page.locator("#stages")).to_contain_text("2 of 3", timeout=SOON)
    assert page.locator("details").get_attribute("open") is None
    put(log, log.read_text() + "Exiting because a job execution failed.\nComplete log(s): x\n")
    expect(page.locator("#how")).to_have_text("failed", timeout=SOON)
    expect(page.locator("#eta")).to_be_hidden()


def test_a_study_that_has_not_begun(study, browser, tmp_path, server):
    shutil.rmtree(study)
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    expect(page.locator("#said")).to_have_text("Nothing has run yet: this page fills once Snakemake is at work.")
    assert page.locator("h2:visible").all_inner_texts() == ["Progress"]
    watched_study.write(tmp_path, time.time())
    expect(page.locator("#how")).to_have_text("running", timeout=SOON)
    page.close()


def test_without_news_it_says_so_and_asks_again(server, browser, monkeypatch):
    page, own = browser.new_page(), server.state
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    expect(page.locator("#how")).to_have_text("running")
    monkeypatch.setattr(server, "state", lambda: 1 / 0)
    expect(page.locator("#lost")).to_contain_text("No news: ZeroDivisionError: division by zero.", timeout=SOON)
    monkeypatch.setattr(server, "state", own)
    expect(page.locator("#lost")).to_be_hidden(timeout=SOON)
    page.close()


@pytest.mark.parametrize("size", SIZES)
def test_no_sideways_scrolling_and_no_violation_of_axe(size, still, opened_still):
    page = still if size == "wide" else opened_still(size)
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
    assert faults(page) == []


def test_by_keyboard_alone(opened):
    """Skip link, then each box that scrolls and each failure, in the page's order; Enter closes a failure."""
    page, reached = opened(), []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert reached[1:6] == ["stages", "SUMMARY", "PRE", "jobs", "runs"]
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("details").get_attribute("open") is None
    page.keyboard.press("Enter")
    # What is at work changes every second; the box that scrolls keeps the focus.
    page.locator("#jobs").focus()
    before = page.inner_text("#jobs")
    expect(page.locator("#jobs")).not_to_have_text(before, timeout=SOON)
    assert page.evaluate("document.activeElement.id") == "jobs"
