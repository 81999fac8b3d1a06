"""Asks the warm worker to run a Python program; the asker sees what `subprocess` would show it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coda.warm.wire import receive, send

ASKED_THROUGH = "CODA_WARM_WORKER"
"""Variable of a program that the worker started: number of the socket by which it may ask for more."""


class Asker:
    """One end of a connection to the warm worker; one program at a time runs through it."""

    def __init__(self, connection: socket.socket) -> None:
        """Ask through `connection`."""
        self._connection = connection
        self._turn = threading.Lock()

    def start(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, out: int, err: int) -> "Program":
        """Start ``python -m <command>``; its turn lasts until `Program.wait` has returned.

        Raises:
            ConnectionError: The worker is gone.
        """
        self._turn.acquire()
        try:
            request = {"command": list(command), "env": dict(env), "cwd": str(cwd)}
            send(self._connection, request, [out, err])
            return Program(self, int(self._answer()["pid"]))
        except BaseException:
            self._turn.release()
            raise

    def finish(self, pid: int) -> int:
        """Wait for the end of a program and return its exit code, negative for a signal."""
        try:
            return int(self._answer()["code"])
        except ConnectionError:
            # nobody is left who could say how it ends: it must not go on unseen
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return -signal.SIGKILL
        finally:
            self._turn.release()

    def _answer(self) -> dict[str, Any]:
        answer, _ = receive(self._connection)
        if answer is None:
            raise ConnectionResetError("The warm worker is gone.")
        return answer


class Program:
    """A program that the worker started."""

    def __init__(self, asker: Asker, pid: int) -> None:
        """Belong to `asker`."""
        self.pid = pid
        self._asker = asker

    def wait(self) -> int:
        """Wait for its end and return its exit code, negative for a signal."""
        return self._asker.finish(self.pid)


@contextmanager
def worker(modules: Sequence[str], log: Path) -> Iterator[Asker]:
    """Start a warm worker in this process's group and environment; it ends with this context, or this process.

    Args:
        modules: What it imports, in this order; ``module:function`` also calls a function that makes a library ready.
        log: File for what libraries print while they are imported.
    """
    ours, its = socket.socketpair()
    with ours, log.open("ab") as file:
        with its:
            process = subprocess.Popen(
                [sys.executable, "-m", "coda.warm.worker", str(its.fileno()), *modules],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, pass_fds=(its.fileno(),),
            )  # fmt: skip
        try:
            yield Asker(ours)
        finally:
            process.kill()  # it holds nothing
            process.wait()


_inherited: dict[int, Asker] = {}
"""Process number -> the asker of this process, so that a fork of it does not talk into its parent's connection."""


def run(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m <command>`` to its end with its output captured: by the worker where this process has one.

    Args:
        command: Module and arguments.
        cwd: Its working directory.
        env: All its variables.
        timeout_s: Seconds after which it is killed.

    Raises:
        subprocess.TimeoutExpired: It took longer.
    """
    cold = [sys.executable, "-m", *command]
    late = threading.Event()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            program = _asker().start(command, env=env, cwd=cwd, out=out.fileno(), err=err.fileno())
        except ConnectionError:
            return subprocess.run(
                cold, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=timeout_s, check=False,
            )  # fmt: skip

        def kill() -> None:
            late.set()
            with suppress(ProcessLookupError):
                os.kill(program.pid, signal.SIGKILL)

        timer = threading.Timer(timeout_s, kill)
        timer.start()
        try:
            code = program.wait()
        finally:
            timer.cancel()
        if late.is_set():
            raise subprocess.TimeoutExpired(cold, timeout_s)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return subprocess.CompletedProcess(cold, code, *texts)


def _asker() -> Asker:
    pid, _, file = os.environ.get(ASKED_THROUGH, "").partition(":")
    if pid != str(os.getpid()):
        # also in a process of its own below the one that was started: the socket is not there
        raise ConnectionError("The warm worker did not start this process.")
    if os.getpid() not in _inherited:
        _inherited[os.getpid()] = Asker(socket.socket(fileno=int(file)))
    return _inherited[os.getpid()]
