"""An answer of the object store that breaks off anywhere is the store's failure, never a wrong result or a defect."""

import socket
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from coda.errors import TransientError
from coda.storage import ObjectStore

LIST = (
    b'<?xml version="1.0"?><ListBucketResult><Name>bucket</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>'
    b"<Contents><Key>k</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag>"
    b"<Size>7</Size></Contents></ListBucketResult>"
)
HEAD = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nServer: s\r\n\r\n'

OPERATIONS: dict[str, tuple[bytes, Callable[[ObjectStore], object], object]] = {
    "get": (HEAD % 7 + b"content", lambda store: store.get("k"), b"content"),
    "size": (HEAD % 7, lambda store: store.size("k"), 7),
    "list": (HEAD % len(LIST) + LIST, lambda store: [(item.key, item.size) for item in store.list()], [("k", 7)]),
    "put": (HEAD % 0, lambda store: store.put("k", b"v"), None),
    "put_if_absent": (HEAD % 0, lambda store: store.put_if_absent("k", b"v"), True),
}


class Cutting:
    """A server that sends only the first bytes of its answer, and closes the connection."""

    def __init__(self) -> None:
        self.answer = b""
        self.go_on = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for _ in count():
            connection, _ = self._listener.accept()
            with connection:
                request = b""
                while b"\r\n\r\n" not in request:
                    piece = connection.recv(65536)
                    if not piece:
                        break
                    request += piece
                if not request:
                    return
                if b"100-continue" in request and self.go_on:
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                    connection.recv(65536)
                connection.sendall(self.answer)

    def close(self) -> None:
        """End the server: a connection that asks for nothing."""
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._listener.close()


@pytest.fixture
def cutting() -> Iterator[Cutting]:
    """The server."""
    server = Cutting()
    yield server
    server.close()


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_answer_that_breaks_off_anywhere_is_transient_or_whole(
    moto_server: object, cutting: Cutting, name: str
) -> None:
    answer, act, expected = OPERATIONS[name]
    store = ObjectStore("s3://bucket", f"http://127.0.0.1:{cutting.port}", attempts=1, timeout_s=5)
    head = answer.index(b"\r\n\r\n") + 4
    for length in [*range(0, head, 3), *range(head, len(answer), 40), len(answer)]:
        cutting.answer = answer[:length]
        try:
            found = act(store)
        except TransientError:
            assert length < len(answer)
        else:
            assert found == expected, answer[:length]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["put", "put_if_absent", "upload"])
def test_a_connection_that_breaks_off_within_continue_does_not_hang(
    moto_server: object, cutting: Cutting, name: str, tmp_path: Path
) -> None:
    """Found by the soak: the trigger read header lines for ever, of a connection that had ended."""
    path = tmp_path / "file"
    path.write_bytes(b"v" * 4096)
    store = ObjectStore("s3://bucket", f"http://127.0.0.1:{cutting.port}", attempts=1, timeout_s=5)
    act = {
        "put": lambda: store.put("k", b"v"),
        "put_if_absent": lambda: store.put_if_absent("k", b"v"),
        "upload": lambda: store.upload(path, "k"),
    }[name]
    cutting.go_on = False
    for cut in (b"", b"HTTP/1.1 100 Con", b"HTTP/1.1 100 Continue\r\n", b"HTTP/1.1 100 Continue\r\nServer: s\r\n"):
        cutting.answer = cut
        with pytest.raises(TransientError, match=r"cannot be reached|broke|closed"):
            act()
