"""One process a state folder: a second one is refused with an error, and a killed one leaves no lock behind."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coda.errors import ConfigError, Problem

LOCK = "in-use"


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold a folder for this process while the block runs.

    The kernel holds the lock and lets go of it with the process, however that ends; the file stays and means nothing.

    Raises:
        ConfigError: Another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        problem = Problem(str(folder), str(error.strerror), "a folder that can be written", "Choose another --runs.")
        raise ConfigError("The state has no folder to lie in.", [problem]) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 20).decode("ascii", "replace").strip() or "unknown"
            found = f"in use by another `make up` or `make demo` (process {holder})"
            remedy = f"Stop that one first (kill {holder}), or give this one another folder with --runs."
            problem = Problem(str(folder), found, "a folder that one process works in", remedy)
            raise ConfigError("The state folder is in use; nothing was started.", [problem]) from error
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)
