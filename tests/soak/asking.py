"""Asks the fork server for a Python program that has imported everything already; run as a program, it stands for one.

Only the standard library's small modules are imported: the trigger starts this once a run.
"""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ADDRESS = "SOAK_FORK_SERVER"
"""Variable with the path of the fork server's socket."""

MESSAGE = 200_000
"""Longest request in bytes: environment and arguments of one program."""


class Child:
    """A program that the fork server started for this process."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid = pid
        self._connection = connection

    def wait(self) -> int:
        """Wait for the end, and return its exit code; negative for a signal, as `subprocess` has it."""
        with self._connection as connection:
            answer = connection.recv(64)
        return int(answer) if answer else -signal.SIGKILL


def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    files: Sequence[int],
    group: int = 0,
    bound: bool = False,
) -> Child:
    """Have ``python -m <command>`` run in a fork of the server.

    Args:
        command: Module and arguments.
        env: All variables of the program.
        cwd: Its working directory.
        files: Its standard input, output and error.
        group: Process group it joins; one of its own for 0.
        bound: End its whole group when this process ends first.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(os.environ[ADDRESS])
    request = {"command": list(command), "env": dict(env), "cwd": cwd, "group": group, "bound": bound}
    socket.send_fds(connection, [json.dumps(request).encode()], list(files))
    return Child(connection, int(connection.recv(64)))


def main() -> int:
    """Stand for ``python -m coda <arguments>``: its signals reach the program, and its end is the program's."""
    child = start(["coda", *sys.argv[1:]], env=os.environ, cwd=str(Path.cwd()), files=(0, 1, 2), bound=True)

    def hand_on(number: int, _frame: object) -> None:
        # whoever stops this process means its whole group (coda.runners.ending_processes)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
