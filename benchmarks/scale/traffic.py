"""What goes in and out of the embedded object store, request by request: written to a file, and read again.

The bytes are those of the bodies: what a store is paid for and a network carries, headers aside. Run as
``python -m benchmarks.scale.traffic --traffic FILE ...`` it is that store, with the arguments of its own.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from coda.local.object_store import Application, Environ, StartResponse, command_line, serve


@dataclass(frozen=True)
class Request:
    """One request that was answered.

    Attributes:
        began: When it came, seconds of the machine's monotonic clock, which all processes share.
        method: GET, PUT, ...
        path: '/bucket/key' as the address has it, without the query; of a listing, the prefix stands for the key.
        received: Bytes of its body.
        sent: Bytes of the answer's body.
    """

    began: float
    method: str
    path: str
    received: int
    sent: int

    @property
    def bucket(self) -> str:
        """Name of the bucket; empty for requests about the service."""
        return self.path.lstrip("/").partition("/")[0]

    @property
    def key(self) -> str:
        """Key of the object; empty for requests about the bucket."""
        return self.path.lstrip("/").partition("/")[2]


class Metered:
    """WSGI layer that adds a line to a file for each request that was answered."""

    def __init__(self, application: Application, log: Path) -> None:
        """Serve `application` and write to `log`; lines that are there stay."""
        self.application = application
        log.parent.mkdir(parents=True, exist_ok=True)
        # one write a line: lines of threads do not mix, and nothing is lost with the process
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        """Serve one request; its line is written when the answer is through, or broken off."""
        began, sent = time.monotonic(), 0
        body = self.application(environ, start_response)
        try:
            for piece in body:
                sent += len(piece)
                yield piece
        finally:
            if hasattr(body, "close"):
                body.close()
            received = environ.get("HTTP_X_AMZ_DECODED_CONTENT_LENGTH") or environ.get("CONTENT_LENGTH") or 0
            answered = 0 if environ["REQUEST_METHOD"] == "HEAD" else sent
            line = [began, environ["REQUEST_METHOD"], _path(environ), int(received), answered]
            os.write(self._log, (json.dumps(line) + "\n").encode())


def _path(environ: Environ) -> str:
    path = str(environ["PATH_INFO"])
    asked = parse_qs(environ.get("QUERY_STRING", "")).get("prefix", [""])[0]
    return f"{path.rstrip('/')}/{asked}" if asked else path


def read_requests(log: Path, *, since: int = 0) -> tuple[list[Request], int]:
    """Return what a log holds from a place on, and the place after it.

    Args:
        log: File that `Metered` writes; one that is not there yet is empty.
        since: Place in bytes, as an earlier call returned it.
    """
    if not log.exists():
        return [], since
    with log.open("rb") as file:
        file.seek(since)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    return [Request(*json.loads(line)) for line in whole.splitlines()], since + len(whole)


def main() -> None:
    """Serve, and write down what was asked."""
    parser = command_line()
    parser.add_argument("--traffic", type=Path, required=True)
    given = parser.parse_args()
    serve(given.root, given.port, given.queue, lambda application: Metered(application, given.traffic))


if __name__ == "__main__":
    main()
