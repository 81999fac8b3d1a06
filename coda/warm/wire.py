"""Messages between the warm worker and those who ask it: JSON with its length in front, and open files beside it."""

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

_LENGTH = struct.Struct("!I")


def send(connection: socket.socket, message: dict[str, Any], files: Sequence[int] = ()) -> None:
    """Send a message with open files."""
    body = json.dumps(message).encode()
    socket.send_fds(connection, [_LENGTH.pack(len(body))], list(files))
    connection.sendall(body)


def receive(connection: socket.socket, most_files: int = 0) -> tuple[dict[str, Any] | None, list[int]]:
    """Wait for a message; None when the other side is gone.

    Returns:
        The message and the numbers of the files that came with it; they are the receiver's to close.
    """
    try:
        head, files, _, _ = socket.recv_fds(connection, _LENGTH.size, most_files)
        head += _exactly(connection, _LENGTH.size - len(head)) if head else b""
        body = _exactly(connection, _LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
    except ConnectionError:
        return None, []
    return (json.loads(body) if body else None), files


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            return b""
        parts += part
    return bytes(parts)
