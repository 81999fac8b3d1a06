"""Errors for a full or closed disk."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coda.errors import ConfigError, Problem

_REASONS = {
    errno.ENOSPC: "Free space on this disk, or choose another output folder; finished plates are not repeated.",
    errno.EDQUOT: "Raise the quota or free space, or choose another output folder; finished plates are not repeated.",
    errno.EROFS: "Choose an output folder that can be written.",
    errno.EACCES: "Give this user the right to write there, or choose another output folder.",
    errno.EPERM: "Give this user the right to write there, or choose another output folder.",
}


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a full, read-only or forbidden disk into an error that says where and what to do.

    Raises:
        ConfigError: The operating system refused to write below `folder`.
    """
    try:
        yield
    except OSError as error:
        remedy = _REASONS.get(error.errno or 0)
        if remedy is None:
            raise
        where = str(error.filename or folder)
        problem = Problem(where, str(error.strerror), "a disk that can be written", remedy)
        raise ConfigError(f"Ingest cannot write to {folder}.", [problem]) from error
