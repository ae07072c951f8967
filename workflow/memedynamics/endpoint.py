"""Requests to an OpenAI-compatible server: sent again after a while where it fails, refused where it refuses.

The API key comes from the environment and goes into a header; no message holds it.
"""

import json
import logging
import os
import random
import re
from collections.abc import Mapping
from http.client import HTTPException
from threading import Event
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from memedynamics.config import Server
from memedynamics.errors import InputError

# Answers of a server that is starting, busy or broken: the same request may do better later.
PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
LONGEST = 60.0  # seconds between two tries

log = logging.getLogger(__name__)


class Refused(InputError):
    """What the server says of a request that it will not answer, whenever it is sent; `status` is HTTP's."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Endpoint:
    """One server; may be asked by many threads at once."""

    def __init__(self, server: Server) -> None:
        self.server, self.closed = server, Event()
        self._key = os.environ.get(server.key_variable or "", "").strip()
        if server.key_variable and not re.fullmatch(r"[!-~]+", self._key):
            raise InputError(
                f"sampling.server.key_variable: the environment has no key in {server.key_variable}; export it where "
                "you start Snakemake"
            )

    def close(self) -> None:
        """Give up waiting: requests that would be sent again fail."""
        self.closed.set()

    def ask(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        """The JSON answer to `body`, posted to `path` (none: fetched).

        Raises Refused where the server finds the request faulty, and InputError where it fails for good.
        """
        for attempt in range(self.server.retries + 1):
            try:
                return self._send(path, body)
            except HTTPError as error:
                failure, asked = self._said(error), _seconds(error.headers.get("Retry-After"))
                if error.code not in PASSING:
                    raise Refused(error.code, f"{self.server.base_url}: {failure}") from None
            # A connection that breaks, times out or ends early, and an answer that is cut short or garbled.
            except (OSError, HTTPException, json.JSONDecodeError, UnicodeDecodeError) as error:
                failure, asked = f"{type(error).__name__}: {error}", 0.0
            if attempt < self.server.retries:
                self._wait(attempt, asked, failure)
        raise InputError(
            f"{self.server.base_url}: {attempt + 1} tries failed, the last with {failure}; see to the server and run "
            "again: finished batches are kept"
        )

    def _send(self, path: str, body: Mapping[str, object] | None) -> dict[str, object]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.server.base_url.rstrip("/") + path, data, {"Content-Type": "application/json"})
        if self._key:
            # Unredirected: the key is for this host alone.
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        with urlopen(request, timeout=self.server.timeout) as answer:
            return json.load(answer)

    def _said(self, error: HTTPError) -> str:
        """Status and body of an error in one line, without the key, which some servers repeat."""
        try:
            text = error.read(4000).decode(errors="replace")
        except (OSError, HTTPException):
            text = ""
        text = " ".join((text.replace(self._key, "…") if self._key else text).split())
        return f"{error.code} {text[:400] or error.reason}"

    def _wait(self, attempt: int, asked: float, failure: str) -> None:
        # Spread out, so that requests that failed together do not come back together.
        delay = max(asked, min(LONGEST, 2.0**attempt) * random.uniform(0.5, 1))
        log.warning("%s: %s; sent again in %.1f s", self.server.base_url, failure, delay)
        if self.closed.wait(delay):
            raise InputError(f"{self.server.base_url}: {failure}")


def _seconds(header: str | None) -> float:
    """What a Retry-After header asks for, up to five times LONGEST; 0 where it gives a date or nothing."""
    return min(float(header), 5 * LONGEST) if header and header.isdecimal() else 0.0
