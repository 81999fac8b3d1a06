"""The webhook's port: one request a connection, bounded in bytes and seconds before anything is believed.

A port of its own, so that a network policy can open it to senders without showing them the metrics.
"""

import io
import json
import logging
import os
import socket
import sys
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from coda.errors import ConfigError, Problem
from coda.monitoring.listening import address, family_of, listening
from coda.trigger.authentication import read_secrets
from coda.trigger.event_source import EventSource, SourceContext
from coda.trigger.limits import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    MOST_CONNECTIONS,
    REQUEST_S,
    BadRequestError,
    BoundedReader,
    TooLargeError,
    read_chunked,
)
from coda.trigger.webhook import Answer, Webhook

log = logging.getLogger(__name__)

PATH = "/events"

WRITE_S = 5.0
"""Seconds a sender may take to read its answer."""

POLL_S = 0.1
"""Seconds after which the server notices that it is to end."""

LINGER_S = 2.0
LINGER_BYTES = 4 * MAX_BODY_BYTES
"""How much of a refused request is read and thrown away, so that its sender gets to read the answer."""


class WebhookServer(EventSource):
    """Takes messages by HTTP POST and answers with what a `Webhook` says."""

    name = "webhook"
    says = "messages by HTTP, with CODA_WEBHOOK_TOKEN or CODA_WEBHOOK_KEY: webhook=HOST:PORT"
    polled = False

    def __init__(
        self,
        webhook: Webhook,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        request_s: float = REQUEST_S,
        most_connections: int = MOST_CONNECTIONS,
    ) -> None:
        """Bind the port; nothing is answered yet.

        Args:
            webhook: What to answer.
            host: Address to listen on.
            port: Port; any free one for 0.
            request_s: Seconds from the connection to the last byte of its request.
            most_connections: Requests served at once; more are told to come back.

        Raises:
            ConfigError: The port is taken.
        """
        self._thread: threading.Thread | None = None
        self._host = host
        with listening("The webhook", host, port, "webhook-"):
            self._server = _Server((host, port), webhook, request_s, most_connections)

    @classmethod
    def make(cls, context: SourceContext, where: str) -> Self:
        """Return the source that listens at an address; the secrets are taken out of the environment."""
        host, _, port = (where or "127.0.0.1:8081").rpartition(":")
        if not host or not (port.isascii() and port.isdigit()):
            problem = Problem("--events webhook", repr(where), "HOST:PORT", "Write for example webhook=127.0.0.1:8081.")
            raise ConfigError("Where the webhook is to listen cannot be understood.", [problem])
        webhook = Webhook(
            context.take, landing=context.landing, secrets=read_secrets(os.environ), metrics=context.metrics
        )
        return cls(webhook, host=host.strip("[]"), port=int(port))

    @property
    def description(self) -> str:
        """Where it listens."""
        return f"the webhook http://{address(self._host, self.port)}{PATH}"

    @property
    def port(self) -> int:
        """Port of the webhook."""
        return int(self._server.server_port)

    def start(self) -> None:
        """Answer requests in threads of their own until `stop`."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,), name="webhook", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests, and let those that are being answered come to their end."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """A server that serves so many connections at once, and waits for them at its end."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], webhook: Webhook, request_s: float, most_connections: int) -> None:
        self.webhook = webhook
        self.request_s = request_s
        self._free = threading.BoundedSemaphore(most_connections)
        self.address_family = family_of(address[0])
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread, or turn it away."""
        if not self._free.acquire(blocking=False):
            with suppress(OSError):
                request.settimeout(1.0)
                request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and free the place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note what went wrong; without an answer the sender sends again."""
        error = sys.exception()
        broken = isinstance(error, OSError)
        level, trace = (logging.INFO, None) if broken else (logging.ERROR, error)
        log.log(level, "A message of %s could not be answered.", client_address[0], exc_info=trace)


class _Handler(BaseHTTPRequestHandler):
    """Answers one POST."""

    protocol_version = "HTTP/1.1"  # only so are senders that wait for "100 Continue" told to go on
    server_version, sys_version = "coda", ""
    server: _Server
    connection: socket.socket

    def setup(self) -> None:
        """Read through a reader that keeps to the limits."""
        super().setup()
        self.limits = BoundedReader(self.connection, most=MAX_HEADER_BYTES, seconds=self.server.request_s)
        self.rfile = io.BufferedReader(self.limits)

    def handle(self) -> None:
        """Serve one request; the connection ends with it."""
        self.close_connection = True
        try:
            self.handle_one_request()
        except TooLargeError:
            self.respond(_too_large(f"the headers have more than {MAX_HEADER_BYTES} bytes"))

    def do_POST(self) -> None:
        """Read the message and answer it."""
        try:
            answer = self.answer()
        except TooLargeError:
            answer = _too_large(f"the body has more than {MAX_BODY_BYTES} bytes")
        except BadRequestError as error:
            answer = Answer(HTTPStatus.BAD_REQUEST, "unreadable", {"error": str(error)})
        except TimeoutError:
            answer = Answer(HTTPStatus.REQUEST_TIMEOUT, "unreadable", {"error": "the request took too long"})
        self.respond(answer)

    def answer(self) -> Answer:
        """Return the answer to this request."""
        if self.path.partition("?")[0] != PATH:
            return Answer(HTTPStatus.NOT_FOUND, "unreadable", {"error": f"messages are taken at {PATH}"})
        if limited := self.server.webhook.limited(str(self.client_address[0])):
            return limited
        return self.server.webhook.received(self.headers, self.body())

    def body(self) -> bytes:
        """Return the body, of a length that was given or in chunks."""
        length, coding = self.headers.get_all("Content-Length") or [], self.headers.get("Transfer-Encoding")
        if coding is not None:
            if length or coding.strip().lower() != "chunked":
                raise BadRequestError("a body has a Content-Length or is chunked")
            self.limits.allow(2 * MAX_BODY_BYTES)
            return read_chunked(self.rfile, MAX_BODY_BYTES)
        if len(length) != 1 or not (length[0].isascii() and length[0].isdigit()):
            raise BadRequestError("one Content-Length is needed")
        if len(length[0]) > 12 or int(length[0]) > MAX_BODY_BYTES:
            raise TooLargeError
        self.limits.allow(int(length[0]))
        body = self.rfile.read(int(length[0]))
        if len(body) != int(length[0]):
            raise BadRequestError("the body broke off")
        return body

    def respond(self, answer: Answer) -> None:
        """Send an answer, and count it."""
        self.server.webhook.count(answer)
        self.request_version = self.protocol_version  # also for what is no HTTP at all
        self.connection.settimeout(WRITE_S)
        data = (json.dumps(answer.body) + "\n").encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        if answer.retry_after_s is not None:
            self.send_header("Retry-After", str(answer.retry_after_s))
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "POST")
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Bearer realm="coda"')
        self.end_headers()
        self.wfile.write(data)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            self.linger()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Say in JSON, too, what `http.server` itself refuses: other methods, and what is no HTTP."""
        status = HTTPStatus(code)
        if status == HTTPStatus.NOT_IMPLEMENTED:
            status, message = HTTPStatus.METHOD_NOT_ALLOWED, "messages are sent by POST"
        self.respond(Answer(status, "unreadable", {"error": message or status.phrase}))

    def linger(self) -> None:
        """Read on for a moment: a sender that still writes would lose the answer with its connection."""
        with suppress(OSError, TooLargeError):
            self.connection.shutdown(socket.SHUT_WR)
            self.limits = BoundedReader(self.connection, most=LINGER_BYTES, seconds=LINGER_S)
            while self.limits.read(65536):
                pass

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keep quiet: what is no HTTP has no request line to tell of, and the rest is counted."""

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  the base class's name
        """Keep quiet: messages are counted, and a URL may hold a secret."""


def _too_large(why: str) -> Answer:
    return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "unreadable", {"error": why})
