"""A loopback proxy in front of the object store, which answers badly when it is told to.

It passes bytes on and reads no more of HTTP than the faults need, so all clients (boto3, DVC's, MLflow's) meet them.
"""

import asyncio
import contextlib
import random
import threading
from collections import Counter
from typing import Self

MODES = ("500", "503", "slow", "cut", "unanswered", "away")
"""Kinds of fault: an internal error; overloaded; each piece late; the answer cut off half-way; the request carried out
but its answer lost (the worst one for conditional writes); every connection refused with a reset."""

_CODES = {"500": ("500 Internal Server Error", "InternalError"), "503": ("503 Slow Down", "SlowDown")}
PIECE = 64 * 1024
LATE_S = 0.4


class FaultProxy:
    """The proxy, in a thread of this process; a context manager."""

    def __init__(self, port: int, *, seed: int) -> None:
        """Stand in front of a server.

        Args:
            port: Loopback port of the real server.
            seed: Decides which requests meet a fault.
        """
        self.injected: Counter[str] = Counter()
        self.port = 0
        self._upstream = port
        self._mode: str | None = None
        self._share = 1.0
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, mode: str | None, share: float = 1.0) -> None:
        """Answer so from now on.

        Args:
            mode: One of `MODES`; None for well.
            share: Share of the requests that meet the fault.
        """
        if mode is not None and mode not in MODES:
            raise ValueError(mode)
        self._mode, self._share = mode, share

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            back, upstream = await asyncio.open_connection("127.0.0.1", self._upstream)
            answers = asyncio.ensure_future(self._answers(back, writer))
            try:
                await self._requests(reader, writer, upstream)
            finally:
                answers.cancel()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for side in (upstream, writer):
                if side is not None:
                    side.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: asyncio.StreamWriter
    ) -> None:
        """Pass requests on; one that meets an error is answered here, and its connection ends."""
        while piece := await reader.read(PIECE):
            fault = self._drawn()
            if fault == "away":
                self._abort(writer)
                return
            if fault in _CODES:
                writer.write(_error(*_CODES[fault]))
                await writer.drain()
                return
            if fault == "slow":
                await asyncio.sleep(LATE_S)
            upstream.write(piece)
            await upstream.drain()
        # the client sends no more, but may still wait for an answer
        upstream.write_eof()

    async def _answers(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await back.read(PIECE):
                fault = self._drawn(only=("cut", "unanswered"))
                if fault is not None:
                    if fault == "cut":
                        writer.write(piece[: len(piece) // 2])
                        await writer.drain()
                    self._abort(writer)
                    return
                writer.write(piece)
                await writer.drain()
        writer.close()

    def _drawn(self, only: tuple[str, ...] = ("500", "503", "slow", "away")) -> str | None:
        mode = self._mode
        if mode is None or mode not in only or self._random.random() >= self._share:
            return None
        self.injected[mode] += 1
        return mode

    @staticmethod
    def _abort(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()


def _error(status: str, code: str) -> bytes:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>injected</Message></Error>'.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return (head + "Connection: close\r\n\r\n").encode() + body
