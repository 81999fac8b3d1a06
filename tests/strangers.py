"""Servers that answer in place of another: sign-in pages, refusals, strangers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = "<!DOCTYPE html><html><head><title>Sign in to Acme</title></head><body>...</body></html>"

ANSWERS = {
    "sign-in page": (200, "text/html; charset=utf-8", PAGE, True),
    "sign-in page called JSON": (200, "application/json", PAGE, True),
    "redirect to a sign-in page": (302, "text/html", "", True),
    "nothing at all": (200, "text/plain", "", True),
    "a stranger's JSON list": (200, "application/json", "[]", True),
    "401 without words": (401, "text/plain", "", True),
    "403 of a mesh": (403, "text/plain", "RBAC: access denied", True),
    "403 in JSON": (403, "application/json", '{"message": "forbidden"}', True),
    "404 page": (404, "text/html", PAGE, True),
    "404 of a stranger": (404, "application/json", '{"detail": "Not Found"}', True),
    "502 page of a gateway": (502, "text/html", "<html>Bad Gateway</html>", False),
    "503 in JSON": (503, "application/json", '{"message": "busy"}', False),
}
"""Name -> status, content type, body, and whether the operator must act (else the service is away)."""


@contextmanager
def stranger(status: int, kind: str, body: str) -> Iterator[ThreadingHTTPServer]:
    """Answer everything alike on a loopback port; `asked` holds the requests."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append(f"{self.command} {self.path}")
            data = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            if status == 302:
                self.send_header("Location", "/sign-in")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_POST = do_PUT = do_HEAD = do_DELETE = do_PATCH = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.asked = asked  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
