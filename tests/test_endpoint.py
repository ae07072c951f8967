"""Requests are sent again where a server fails, refused where it refuses, and never give away the key."""

import json
import threading
import time

import pytest

from faulty_proxy import Proxy
from memedynamics import endpoint
from memedynamics.config import Server
from memedynamics.endpoint import Endpoint, Refused
from memedynamics.errors import InputError

KEY = "sk-not-to-be-seen"


def echo(path, body):
    """What the server was asked; a request for /secret is refused with the key in the answer, as some servers do."""
    if path.endswith("/secret"):
        return 401, f"Incorrect API key provided: {KEY}".encode()
    return 200, json.dumps({"path": path, "body": body and json.loads(body)}).encode()


@pytest.fixture
def proxy():
    proxy = Proxy(echo)
    yield proxy
    proxy.close()


@pytest.fixture
def at_once(monkeypatch):
    """Waits of a hundredth, and what they would have been."""
    waits = []

    class Hasty(threading.Event):
        def wait(self, timeout):
            waits.append(timeout)
            return super().wait(timeout / 100)

    monkeypatch.setattr(endpoint, "Event", Hasty)
    return waits


def asker(proxy, **settings):
    return Endpoint(Server(base_url=proxy.url, **settings))


def test_what_fails_is_sent_again(proxy, at_once):
    """Every kind of failure, each once; waits of at least half of 1, 2, 4, … s, and what the server asks for."""
    proxy.faults = [500, 429, "drop", "cut", "garble", 503, 408]
    assert asker(proxy).ask("/chat/completions", {"a": 1}) == {"path": "/v1/chat/completions", "body": {"a": 1}}
    assert len(proxy.headers) == 8 and len(at_once) == 7
    assert all(wait >= 2**n / 2 for n, wait in enumerate(at_once)) and at_once[0] >= 1
    assert all(wait <= 2**n for n, wait in enumerate(at_once) if n)


def test_what_always_fails_is_given_up(proxy, at_once):
    proxy.faults = [503] * 9
    with pytest.raises(InputError, match=r"127.0.0.1.*: 3 tries failed, the last with 503 .*not now.*batches are kept"):
        asker(proxy, retries=2).ask("/models")
    assert len(proxy.headers) == 3


def test_no_server(at_once):
    with pytest.raises(InputError, match="2 tries failed, the last with URLError: .*refused"):
        Endpoint(Server(base_url="http://127.0.0.1:9/v1", retries=1)).ask("/models")


def test_a_closed_endpoint_waits_no_longer(proxy):
    """Other requests of a job that failed do not keep it waiting."""
    proxy.faults = [503] * 9
    asked, found = asker(proxy), []

    def ask():
        with pytest.raises(InputError, match="503"):
            asked.ask("/models")
        found.append(time.time())

    thread, began = threading.Thread(target=ask), time.time()
    thread.start()
    while not proxy.headers:
        time.sleep(0.01)
    asked.close()
    thread.join()
    assert found[0] - began < 0.5


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(proxy, at_once, monkeypatch, caplog):
    monkeypatch.setenv("STUDY_KEY", f" {KEY}\n")
    with_key = asker(proxy, key_variable="STUDY_KEY")
    proxy.faults = [500]
    assert KEY not in json.dumps(with_key.ask("/models"))
    assert [headers["Authorization"] for headers in proxy.headers] == [f"Bearer {KEY}"] * 2
    with pytest.raises(Refused, match="401 Incorrect API key provided: …") as refused:
        with_key.ask("/secret")
    assert refused.value.status == 401 and len(proxy.headers) == 3
    assert "sent again" in caplog.text and KEY not in caplog.text + str(refused.value)


def test_no_key_where_one_is_named(proxy, monkeypatch):
    monkeypatch.delenv("STUDY_KEY", raising=False)
    with pytest.raises(InputError, match="sampling.server.key_variable: the environment has no key in STUDY_KEY"):
        asker(proxy, key_variable="STUDY_KEY")
    assert "Authorization" not in str(asker(proxy).ask("/models")) + str(proxy.headers)
