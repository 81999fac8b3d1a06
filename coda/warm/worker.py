"""The warm worker: imports what programs need while nobody asks for one, and forks for each that is asked for.

Run as ``python -m coda.warm.worker SOCKET MODULE...`` with the number of an inherited socket. It ends when the other
side of that socket does. It starts no threads and holds nothing but modules, so that a fork of it is sound.
"""

import atexit
import gc
import importlib
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from coda.warm.asking import ASKED_THROUGH
from coda.warm.wire import receive, send

READ_ON_LOADING = (
    "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "CUDA_", "NVIDIA_", "PYTORCH_", "TORCH_", "LD_", "PYTHON",
    "MALLOC_", "MPL", "GLIBC_",
)  # fmt: skip
"""Beginnings of variables that Python and libraries read once: a program that has others must not share them."""


@dataclass
class Program:
    """What to be, in a fresh fork: a request, its open files, and the socket to ask for more."""

    request: dict[str, Any]
    files: list[int]
    connection: socket.socket


class Worker:
    """Imports, forks, and tells the end of each fork to who asked for it.

    Attributes:
        modules: What is still to be imported, in reverse order.
    """

    def __init__(self, connection: socket.socket, modules: Sequence[str]) -> None:
        """Serve `connection`, and import `modules` meanwhile."""
        self.modules = list(reversed(modules))
        self._first = connection
        self._spoiled = sys.platform != "linux"  # other systems' libraries do not survive a fork
        self._variables = _read_once(os.environ)
        self._interrupt = signal.getsignal(signal.SIGINT)
        self._children: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._bell, self._ring = socket.socketpair()

    def serve(self) -> Program | None:
        """Serve until the other side is gone; in a fork, return the program it is to be."""
        # in the handler, and so also in the middle of a long import: who asked does not wait for it
        signal.signal(signal.SIGCHLD, lambda *_: self._reap())
        # a signal that comes just before the wait begins would not end it, and its handler not run, but for this
        self._bell.settimeout(0)
        self._ring.settimeout(0)
        signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._bell, selectors.EVENT_READ, self._heard)
        # Ctrl-C is for the programs, where it was not ignored; this process ends with the runner
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        gc.disable()  # nothing here is garbage, and a search would touch all pages that forks share
        self._listen(self._first)
        while self._first.fileno() >= 0:
            ready = self._selector.select(0 if self.modules else None)
            for key, _ in ready:
                program: Program | None = key.data()
                if program is not None:
                    return program
            if not ready:
                self._import_next()
        return None

    def warm(self, variables: dict[str, str]) -> bool:
        """Return whether a fork of this process may be a program with these variables."""
        torch = sys.modules.get("torch")
        return not (
            self._spoiled
            or _read_once(variables) != self._variables
            or not _same_letters(variables)
            or threading.active_count() > 1
            or (torch is not None and torch.cuda.is_initialized())
        )

    def _import_next(self) -> None:
        name = self.modules.pop()
        if self._spoiled:
            return
        try:
            module, _, function = name.partition(":")
            imported = importlib.import_module(module)
            if function:
                getattr(imported, function)()
        except Exception:  # noqa: BLE001
            # what is half imported must not be shared; the program that needs it will tell of it in its own words
            traceback.print_exc()
            self._spoiled = True

    def _listen(self, connection: socket.socket) -> None:
        data: Callable[[], Program | None] = lambda: self._take(connection)  # noqa: E731
        self._selector.register(connection, selectors.EVENT_READ, data)

    def _heard(self) -> None:
        with suppress(BlockingIOError):
            self._bell.recv(4096)

    def _take(self, connection: socket.socket) -> Program | None:
        request, files = receive(connection, 2)
        if request is None:
            self._selector.unregister(connection)
            connection.close()
            return None
        ours, its = socket.socketpair()
        request["warm"] = self.warm(request["env"])
        gc.freeze()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # its end is told after its number
        pid = os.fork()
        if pid == 0:
            self._leave(ours)
            return Program(request, files, its)
        its.close()
        for file in files:
            os.close(file)
        self._children[pid] = connection
        self._listen(ours)
        with suppress(OSError):
            send(connection, {"pid": pid})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        return None

    def _reap(self) -> None:
        for child, asked in list(self._children.items()):  # by number: an import may have started programs of its own
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                del self._children[pid]
                with suppress(OSError):  # who asked may be gone
                    send(asked, {"code": os.waitstatus_to_exitcode(status)})

    def _leave(self, ours: socket.socket) -> None:
        """Close what is the parent's, in a fork."""
        signal.set_wakeup_fd(-1)
        self._ring.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        signal.signal(signal.SIGINT, self._interrupt)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        ours.close()
        gc.enable()


def become(program: Program) -> None:
    """Be a program, in a fresh fork; how it ends is how this process ends."""
    request = program.request
    for number, file in enumerate(program.files, start=1):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    if not request["warm"]:
        os.execve(sys.executable, [sys.executable, "-m", *request["command"]], request["env"])  # noqa: S606
    os.environ.clear()
    os.environ.update(request["env"])
    os.environ[ASKED_THROUGH] = f"{os.getpid()}:{program.connection.detach()}"
    tempfile.tempdir = None  # TMPDIR may be another one now
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # else all forks would draw the same numbers where no seed is given
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd()  # noqa: PTH109  as `python -m` has it
    module, *arguments = request["command"]
    sys.argv = [module, *arguments]
    if not hasattr(sys.modules.get(module), "__path__"):
        sys.modules.pop(module, None)  # runpy warns of a module that was imported before it is run
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def end_as_python_does(program: Callable[[], None]) -> NoReturn:
    """Run a program to its end, and end this process as the interpreter would: threads, exit handlers, exit code.

    Only what the interpreter does last is left out: taking apart every module. In a fork it would copy, page by page,
    all that is shared with the worker (1 s of CPU for each step), for memory that is given back a moment later anyway.
    """
    code, interrupted = 0, False
    try:
        program()
    except SystemExit as ending:
        if isinstance(ending.code, int):
            code = ending.code
        elif ending.code is not None:
            code = 1
            sys.stderr.write(f"{ending.code}\n")
    except BaseException as error:  # noqa: BLE001
        code, interrupted = 1, isinstance(error, KeyboardInterrupt)
        sys.excepthook(type(error), error, error.__traceback__)
    # as multiprocessing ends its forks
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


def _read_once(variables: Any) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(READ_ON_LOADING)}


def _same_letters(variables: dict[str, str]) -> bool:
    """Return whether a fresh interpreter with these variables would write names and texts as this one does."""
    ours, asked = (
        env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or "C" for env in (os.environ, variables)
    )
    # Python takes "C" for C.UTF-8
    utf8 = asked in ("C", "POSIX") or asked.lower().replace("-", "").endswith("utf8")
    return ours == asked or (utf8 and sys.getfilesystemencoding() == "utf-8")


def main() -> None:
    """Serve; in a fork, be the program that was asked for, and end as it does."""
    worker = Worker(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
    program = worker.serve()
    del worker
    if program is not None:
        end_as_python_does(lambda: become(program))


if __name__ == "__main__":
    main()
