"""What one sender may take of the webhook: bytes, seconds, requests, connections."""

import io
import socket
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_HEADER_BYTES = 16 * 1024
"""Bytes of request line and headers together."""

MAX_BODY_BYTES = 1024 * 1024
"""Bytes of a body: SQS allows 256 KiB for the same messages, and a bus may put several together."""

REQUEST_S = 10.0
"""Seconds from the connection to the last byte of the request, however steadily it drips."""

MOST_CONNECTIONS = 64
"""Requests served at once; more are told to come back."""

SENDERS = 10_000
"""Addresses whose rate is remembered."""


class TooLargeError(Exception):
    """The sender wants to send more than it may."""


class BadRequestError(Exception):
    """The request breaks HTTP's own rules."""


class RateLimit:
    """Token buckets, one for each address. Threads may share it."""

    def __init__(self, per_second: float, burst: int) -> None:
        """Let `burst` requests through at once, and `per_second` from then on."""
        self.per_second = per_second
        self.burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, sender: str) -> float:
        """Count a request of `sender`; return 0 when it may proceed, else after how many seconds to send again."""
        now = time.monotonic()
        with self._lock:
            left, at = self._buckets.pop(sender, (float(self.burst), now))
            left = min(self.burst, left + (now - at) * self.per_second)
            allowed = left >= 1
            self._buckets[sender] = (left - 1 if allowed else left, now)
            if len(self._buckets) > SENDERS:
                self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self.per_second


class BoundedReader(io.RawIOBase):
    """The bytes of one connection, so many at most, until so late at the latest."""

    def __init__(self, connection: socket.socket, *, most: int, seconds: float) -> None:
        """Read from a connection.

        Args:
            connection: The connection.
            most: Bytes it may send before `allow` is called.
            seconds: Seconds from now until its last byte.
        """
        self._connection = connection
        self._left = most
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def allow(self, more: int) -> None:
        """Let the sender send so many bytes more."""
        self._left += more

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read what is there, or wait for it.

        Raises:
            TimeoutError: The sender took too long.
            TooLargeError: It sent more than it may.
        """
        view = memoryview(buffer)
        remaining = self._until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        if self._left <= 0:
            raise TooLargeError
        self._connection.settimeout(remaining)
        count = self._connection.recv_into(view[: self._left])
        self._left -= count
        return count


def read_chunked(stream: io.BufferedIOBase, most: int) -> bytes:
    """Return a body in HTTP's chunked encoding.

    Raises:
        BadRequestError: It is not in that encoding, or broke off.
        TooLargeError: It has more than `most` bytes.
    """
    body = bytearray()
    while True:
        size = stream.readline(64).partition(b";")[0].strip()
        if not size or len(size) > 8 or any(digit not in b"0123456789abcdefABCDEF" for digit in size):
            raise BadRequestError("the body is not in chunks")
        count = int(size, 16)
        if len(body) + count > most:
            raise TooLargeError
        if count == 0:
            return bytes(body)  # trailers are of no interest, and the connection ends here
        chunk = stream.read(count)
        body += chunk
        if len(chunk) != count or stream.read(2) != b"\r\n":
            raise BadRequestError("the body broke off in a chunk")
