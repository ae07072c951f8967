"""An HTTP proxy on loopback that misbehaves as it is told, in front of a real server or alone, and keeps a record."""

import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen


class Proxy:
    """Listens at `url`. `faults` are taken one a request, until none is left; then `answer` answers.

    A fault: a status, "drop" (the connection), "cut" (half an answer) or "garble" (an answer that is no UTF-8). `asked`
    holds (body, answer) of what was passed on, `headers` those of every request, `under_way` what has no answer yet.
    """

    def __init__(self, answer: Callable[[str, bytes | None], tuple[int, bytes]]) -> None:
        self.faults, self.asked, self.headers, self.answer = [], [], [], answer
        self.under_way = set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def settle(self, quiet: float = 0.5) -> None:
        """Wait until nothing has been under way for that many seconds: a client that died leaves requests behind."""
        since = time.monotonic()
        while time.monotonic() - since < quiet:
            time.sleep(0.02)
            since = time.monotonic() if self.under_way else since

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                proxy.under_way.add(self)
                try:
                    self._serve(self.rfile.read(int(self.headers["Content-Length"])))
                finally:
                    proxy.under_way.discard(self)

            def do_GET(self) -> None:
                self._serve(None)

            def _serve(self, body: bytes | None) -> None:
                proxy.headers.append(dict(self.headers))
                fault = proxy.faults.pop(0) if proxy.faults else None
                if fault == "drop":
                    return self.connection.shutdown(socket.SHUT_RDWR)
                status, answer = (fault, b'{"error": "not now"}') if isinstance(fault, int) else self._passed_on(body)
                answer = b'{"\xff' + answer if fault == "garble" else answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.send_header("Retry-After", "1")
                self.end_headers()
                self.wfile.write(answer[: len(answer) // 2] if fault == "cut" else answer)

            def _passed_on(self, body: bytes | None) -> tuple[int, bytes]:
                status, answer = proxy.answer(self.path, body)
                if status == 200 and body:
                    proxy.asked.append((json.loads(body), json.loads(answer)))
                return status, answer

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def before(origin: str) -> Callable[[str, bytes | None], tuple[int, bytes]]:
    """What answers for a proxy in front of the server at `origin`."""

    def answer(path: str, body: bytes | None) -> tuple[int, bytes]:
        try:
            with urlopen(Request(origin + path, body, {"Content-Type": "application/json"})) as reply:
                return reply.status, reply.read()
        except HTTPError as error:
            return error.code, error.read()

    return answer
