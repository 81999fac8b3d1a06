"""Files that are whole under their final name even after a power cut.

A file that is written and then renamed may, after the machine lost its power, be there under its name and be empty:
the name reached the disk and the bytes did not. Its bytes are sent to the disk before it gets its name, and its folder
after that.
"""

import os
from pathlib import Path


def give_name(draft: Path, path: Path) -> Path:
    """Give a finished draft its final name, in the same file system; afterwards both outlive a power cut.

    Args:
        draft: File, or folder with all it holds, that is complete.
        path: Its name from now on; a file of this name is replaced.

    Raises:
        OSError: The disk is full, or failed.
    """
    for item in [draft, *sorted(draft.rglob("*"))] if draft.is_dir() else [draft]:
        if not item.is_symlink() and (item.is_file() or item.is_dir()):
            _sync(item)
    draft.replace(path)
    _sync(path.parent)
    return path


def write_durably(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all, so that it outlives a power cut; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(data)
    return give_name(draft, path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
