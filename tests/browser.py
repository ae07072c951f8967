"""A page in Debian's Chromium: what it complained of, what it asked for, what axe finds."""

import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium without a sandbox, as root needs it; without one the test is skipped, but fails in CI."""
    found = shutil.which("chromium")
    if not found and not os.environ.get("CI"):
        pytest.skip("no Chromium here")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])


class Silent(http.server.SimpleHTTPRequestHandler):
    """A server that tells nobody of what it serves."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server over `folder`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def watched(browser: Browser, size: dict[str, int]) -> Iterator[Page]:
    """A fresh page of `size` that must be left without errors in its console and requests to elsewhere."""
    page, wrong = browser.new_page(viewport=size), []
    page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda request: _is_outside(request.url, page.url) and wrong.append(request.url))
    yield page
    page.close()
    assert not wrong, wrong


@contextmanager
def opened(browser: Browser, address: str, size: dict[str, int] = WIDE) -> Iterator[Page]:
    """The page at `address`, watched."""
    with watched(browser, size) as page:
        page.goto(address)
        yield page


def _is_outside(url: str, page: str) -> bool:
    allowed = ("file:", "data:", "blob:", "http://127.0.0.1:")
    return not url.startswith(allowed) or (page.startswith("http") and url.startswith("file:"))


def faults(page: Page) -> list[str]:
    """What axe-core finds wrong with the page as it stands, WCAG's levels A and AA and its best practices."""
    # Preloading would ask for style sheets as data, which the pages' policy refuses. Describing what passes would take
    # most of the time.
    found = Axe().run(page, options={"preload": False, "resultTypes": ["violations"]}).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


def is_too_wide(page: Page) -> bool:
    """Whether the page scrolls sideways."""
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
