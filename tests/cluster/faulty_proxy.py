"""A small HTTP proxy before an S3 endpoint that fails by a schedule, as stores and networks do."""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = str | None
Schedule = Callable[[str, str], Fault]
"""Of method and path: the fault of this request, None for none.

"503" and "500": answered so. "hang": no answer. "drop": the connection is closed instead of an answer. "lost answer":
likewise, but the store has done what was asked. "cut": a body that ends in its middle. "short": a body without its end,
whose length is given as if that were all.
"""

HANG_SECONDS = 5.0
SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate</Message></Error>"
)


class FaultyProxy:
    """Where it listens, and what it has done. `schedule` may be set anew at any time."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("http://").partition(":")
        self.target = host, int(port)
        self.schedule: Schedule = lambda method, path: None
        self.done: Counter[str] = Counter()
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def faulty_proxy(target: str) -> Iterator[FaultyProxy]:
    """A proxy before the endpoint `http://HOST:PORT`."""
    proxy = FaultyProxy(target)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()


def seeded(seed: int, share: float, faults: tuple[str, ...]) -> Schedule:
    """So large a share of the requests fails, drawn by the seed; of each kind of request first one that does not."""
    draws, lock = random.Random(seed), threading.Lock()

    def schedule(method: str, path: str) -> Fault:
        with lock:
            return draws.choice(faults) if draws.random() < share else None

    return schedule


def first(*faults: str, of: str = "") -> Schedule:
    """The first requests whose "METHOD path" holds `of` fail, by one fault each."""
    left, lock = list(faults), threading.Lock()

    def schedule(method: str, path: str) -> Fault:
        with lock:
            return left.pop(0) if left and of in f"{method} {path}" else None

    return schedule


def always(fault: str, of: str = "") -> Schedule:
    """Every request whose "METHOD path" holds `of` fails."""
    return lambda method, path: fault if of in f"{method} {path}" else None


def _handler(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *values: object) -> None:
            pass

        def _serve(self) -> None:
            fault = proxy.schedule(self.command, self.path)
            body = self._body()
            with proxy.lock:
                proxy.requests.append(f"{self.command} {self.path}")
                proxy.done[fault or "none"] += 1
            if fault == "hang":
                time.sleep(HANG_SECONDS)
                self._hang_up()
            elif fault == "drop":
                self._hang_up()
            elif fault in ("500", "503"):
                self._answer(int(fault), {"Content-Type": "application/xml"}, SLOW_DOWN)
            else:
                self._pass_on(fault, body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

        def _body(self) -> bytes:
            if "100-continue" in self.headers.get("Expect", ""):
                del self.headers["Expect"]
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _pass_on(self, fault: Fault, body: bytes) -> None:
            connection = HTTPConnection(*proxy.target, timeout=30)
            try:
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                response = connection.getresponse()
                data = response.read()
            finally:
                connection.close()
            if fault == "lost answer":
                self._hang_up()
                return
            headers = {
                name: value
                for name, value in response.getheaders()
                if name.lower() not in ("connection", "transfer-encoding", "content-length", "server", "date")
            }
            length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            if fault == "short" and len(data) > 1:
                data = data[: len(data) // 2]
                length = str(len(data))
                headers = {name: value for name, value in headers.items() if "checksum" not in name.lower()}
            self._answer(response.status, headers, data, length, data[: len(data) // 2] if fault == "cut" else data)

        def _answer(
            self,
            status: int,
            headers: dict[str, str],
            data: bytes,
            length: str | None = None,
            sent: bytes | None = None,
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            sent = data if sent is None else sent
            if self.command != "HEAD":
                self.wfile.write(sent)
            if len(sent) < len(data):
                self._hang_up()

        def _hang_up(self) -> None:
            self.close_connection = True
            self.wfile.flush()
            try:
                self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    return Handler
