"""A way to the S3 server on which things go wrong: errors, silence, slowness, broken connections, cut bodies.

Every fault is drawn from a seeded generator, so one seed gives one sequence of faults for one sequence of requests.
"""

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Literal
from urllib.parse import urlsplit

Kind = Literal["500", "503", "timeout", "slow", "dropped", "answer lost", "body cut"]

ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>Injected.</Message><RequestId>0</RequestId></Error>"""
CODES = {"500": "InternalError", "503": "SlowDown"}
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}


class FaultProxy:
    """Forwards requests to a server, and spoils some of them.

    Attributes:
        injected: Faults so far, by kind.
    """

    def __init__(self, upstream: str, seed: int, *, share: float, silence_s: float = 4.0) -> None:
        """Listen on loopback.

        Args:
            upstream: Address of the server.
            seed: Seed of the faults.
            share: Share of the requests that are spoiled, 0 to 1.
            silence_s: Seconds of a request that is not answered; longer than the client waits.
        """
        self.upstream = urlsplit(upstream)
        self.share, self.silence_s = share, silence_s
        self.kinds: tuple[Kind, ...] = ()
        self.injected: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator["FaultProxy"]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    @contextmanager
    def spoiling(self, *kinds: Kind) -> Iterator[None]:
        """Spoil requests in these ways while the block runs."""
        self.kinds = kinds
        try:
            yield
        finally:
            self.kinds = ()

    def draw(self) -> Kind | None:
        """Return what happens to the next request."""
        with self._lock:
            if not self.kinds or self._random.random() >= self.share:
                return None
            kind = self._random.choice(self.kinds)
            self.injected[kind] += 1
            return kind


class _Handler(BaseHTTPRequestHandler):
    """Answers one client of a proxy."""

    proxy: ClassVar[FaultProxy]
    protocol_version = "HTTP/1.1"
    timeout = 60

    def forward(self) -> None:
        body = self._body()
        kind = self.proxy.draw()
        if kind in CODES:
            self._answer(int(kind), [("Content-Type", "application/xml")], ERROR.format(code=CODES[kind]).encode())
        elif kind == "dropped":
            self._hang_up()
        elif kind == "timeout":
            time.sleep(self.proxy.silence_s)
            self._hang_up()
        else:
            self._pass_on(body, kind)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # noqa: N815  the base class's names

    def _pass_on(self, body: bytes, kind: Kind | None) -> None:
        connection = http.client.HTTPConnection(self.proxy.upstream.hostname, self.proxy.upstream.port, timeout=60)
        try:
            # the host stays the one that was signed
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            headers.pop("Expect", None)
            headers["Content-Length"] = str(len(body))
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if kind == "answer lost":
            self._hang_up()
            return
        if kind == "slow":
            time.sleep(1.0)
        told = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
        self._answer(answer.status, told, content, cut=kind == "body cut")

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length":
                self.send_header(name, value)
        length = len(content)
        if self.command == "HEAD":
            length = int({name.lower(): value for name, value in headers}.get("content-length", 0))
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[: length // 2] if cut else content)
        if cut:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.close()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  the base class's name
        """Keep quiet."""
