"""A program that ends with the one that started it, however that went: ``python -m coda.local.tied PROGRAM ...``.

The starter holds the other end of standard input. When it is gone (Ctrl-C, a closed terminal, kill -9, a crash), the
program is asked to end, and what is left of its process group after a while is killed.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

GRACE_S = 25.0
"""Seconds between asking and killing: the trigger gives its runs 20."""


def start(command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program that ends with this process; `end` ends it sooner."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "coda.local.tied", *command],
            env=dict(environment), stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip


def end(process: subprocess.Popen[bytes]) -> None:
    """End what `start` started, with all its children."""
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    try:
        process.wait(timeout=GRACE_S + 10)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> int:
    """Run the program of the command line in this process group, and return its exit code."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: process.send_signal(received))
    alone = threading.Event()
    watch = threading.Thread(target=_end_with_starter, args=(process, alone), daemon=True)
    watch.start()
    code = process.wait()
    if alone.is_set():
        watch.join()  # ends this process as well
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)  # children that the program left
    return code


def _end_with_starter(process: "subprocess.Popen[bytes]", alone: threading.Event) -> None:
    # not by sys.stdin: a thread that waits in there stops the interpreter from ending
    while os.read(0, 1024):
        pass
    alone.set()
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=GRACE_S)
    os.killpg(0, signal.SIGKILL)  # this process leads its group: nothing of it is left


if __name__ == "__main__":
    raise SystemExit(main())
