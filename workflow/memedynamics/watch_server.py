"""A page on this machine alone that shows a running study: it reads, and writes nothing."""

import json
import sys
import time
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from plotly.offline import get_plotlyjs

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
# style.css is the report's too.
FILES = {
    "/": ("watch.html", "text/html"),
    "/style.css": ("style.css", "text/css"),
    "/watch.css": ("watch.css", "text/css"),
    "/watch.js": ("watch.js", "text/javascript"),
}
HEADERS = {
    # Plotly makes styles of its own.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
FRESH = 1.0  # seconds: pages that ask within them are told the same


class Server(ThreadingHTTPServer):
    """Serves the page in `web` and, as JSON, what `state` returns."""

    daemon_threads = True

    def __init__(self, state: Callable[[], dict[str, object]], web: Path, port: int = 0) -> None:
        """`port` 0 is any that is free. Raises OSError where it is taken."""
        super().__init__((ADDRESS, port), Handler)
        self.state, self.web = state, web
        self.asking, self.told, self.at = Lock(), b"", -FRESH

    def json(self) -> bytes:
        """What `state` returns, looked up once for all that ask at the same time."""
        with self.asking:
            if time.monotonic() - self.at > FRESH:
                self.told, self.at = json.dumps(self.state(), allow_nan=False).encode(), time.monotonic()
            return self.told

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a browser that went away; anything else is one line."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            print(f"watch: {type(error).__name__}: {error}", file=sys.stderr)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the few things there are, where this machine is asked by its own name."""

    server: Server
    server_version, sys_version = "watch", ""

    def do_GET(self) -> None:
        """Answer with headers and content."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer with the headers alone."""
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        # Another site's page, whose name was made to lead here, would ask by that name (DNS rebinding).
        if self.headers.get("Host", "").rsplit(":", 1)[0].lower() not in NAMES:
            return self._send(HTTPStatus.FORBIDDEN, "text/plain", b"ask for 127.0.0.1\n", body)
        try:
            found = self._found(self.path.partition("?")[0])
        except Exception as error:  # files change while they are read: the page says so and asks again
            told = f"{type(error).__name__}: {error}\n".encode()
            return self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", told, body)
        if found is None:
            return self._send(HTTPStatus.NOT_FOUND, "text/plain", b"no such page\n", body)
        return self._send(HTTPStatus.OK, *found, body)

    def _found(self, path: str) -> tuple[str, bytes] | None:
        if path == "/state.json":
            return "application/json", self.server.json()
        if path == "/plotly.js":
            return "text/javascript", _plotly()
        if path not in FILES:
            return None
        name, kind = FILES[path]
        return kind, (self.server.web / name).read_bytes()

    def _send(self, status: HTTPStatus, kind: str, content: bytes, body: bool) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a page asks every two seconds."""


@cache
def _plotly() -> bytes:
    return get_plotlyjs().encode()
