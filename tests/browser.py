"""A page in Chromium, opened from disk or from a server: what it logs, what it asks for outside, how axe judges it."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; the test is skipped where there is none, but not in CI."""
    path = shutil.which("chromium")
    if path is None and os.environ.get("CI") != "true":
        pytest.skip("no Chromium here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a plain web server for the files in `folder`."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextmanager
def opened(browser: Browser, address: str, size: dict = WIDE) -> Iterator[Page]:
    """The page at `address`; fails at its end where it logged an error, opened a dialog, or asked for what it lacks.

    Neither may it ask for anything outside the folder or server that it is from.
    """
    page, wrong = browser.new_page(viewport=size), []
    home = address.rpartition("/")[0]
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("requestfailed", lambda asked: wrong.append(f"failed {asked.url}"))
    page.on("request", lambda asked: None if _own(asked.url, home) else wrong.append(f"outside {asked.url}"))
    try:
        page.goto(address)
        yield page
    except Exception as error:
        error.add_note(f"the page said: {wrong}")
        raise
    finally:
        page.close()
    assert not wrong, wrong


def _own(url: str, home: str) -> bool:
    return url.startswith((home, "data:", "blob:"))


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with the page as it stands, one line a rule and element."""
    found = Axe().run(page, options={"preload": False}).response["violations"]
    return [f"{rule['id']}: {node['html'][:120]} {node['any'][:1]}" for rule in found for node in rule["nodes"]]


def scrolls_sideways(page: Page) -> bool:
    """Whether the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
