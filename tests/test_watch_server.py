"""The live view's server: this machine alone, a few files, and no other site's page."""

import http.client
import json
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from memedynamics.watch_server import Server

WEB = Path(__file__).parents[1] / "workflow/web"


@contextmanager
def served(state):
    """A server of what `state` returns."""
    with Server(state, WEB) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server():
    with served(lambda: {"study": "demo"}) as server:
        yield server


def ask(server, path="/", method="GET", **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def test_it_listens_on_this_machine_alone(server):
    assert server.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("path", "kind", "holds"),
    [
        ("/", "text/html", b"<!doctype html>"),
        ("/?x=1", "text/html", b"<!doctype html>"),
        ("/style.css", "text/css", b"body"),
        ("/watch.css", "text/css", b".charts"),
        ("/watch.js", "text/javascript", b"Plotly.react"),
        ("/plotly.js", "text/javascript", b"Plotly"),
        ("/state.json", "application/json", b'{"study": "demo"}'),
    ],
)
def test_what_there_is(path, kind, holds, server):
    status, headers, body = ask(server, path)
    assert status == 200 and holds in body and headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["X-Content-Type-Options"] == "nosniff"
    assert ask(server, path, "HEAD")[2] == b"" and int(ask(server, path, "HEAD")[1]["Content-Length"]) == len(body)


@pytest.mark.parametrize(
    "path", ["/watch.html", "/../scripts/watch.py", "/%2e%2e/scripts/watch.py", "//etc/passwd", "*"]
)
def test_what_there_is_not(path, server):
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_but_reading(method, server):
    assert ask(server, "/", method)[0] == 501


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:8700", "127.0.0.1:1"])
def test_its_own_names(host, server):
    """Whatever the port: a tunnel may end at another one."""
    assert ask(server, "/state.json", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:127.0.0.1", "", None, "[::1]"]
)
def test_any_other_name_is_refused(host, server):
    """DNS rebinding: a site's name that leads to this machine."""
    status, _, body = ask(server, "/state.json", Host=host)
    assert status == 403 and b"demo" not in body


def test_many_that_ask_at_once_are_told_the_same():
    asked = []
    with served(lambda: asked.append(1) or {"times": len(asked)}) as server:
        assert [json.loads(ask(server, "/state.json")[2]) for _ in range(5)] == [{"times": 1}] * 5


def test_what_cannot_be_read_is_said_and_asked_for_again():
    def state():
        raise OSError("stale file handle")

    with served(state) as server:
        assert ask(server, "/state.json")[::2] == (500, b"OSError: stale file handle\n")
        assert ask(server)[0] == 200
