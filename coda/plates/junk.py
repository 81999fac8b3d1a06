"""Files that systems leave beside data: companions of macOS, thumbnails, indexes of network disks, waste bins."""

NAMES = frozenset((
    ".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "@tmp", ".@__thumb", "@recycle", "#recycle",
    "#snapshot", ".snapshot", "$recycle.bin", "system volume information", "__macosx", ".appledouble",
    ".appledb", ".appledesktop", ".spotlight-v100", ".trashes", ".fseventsd", ".temporaryitems", ".trash",
    ".documentrevisions-v100", "lost+found", ".ipynb_checkpoints", ".git",
))  # fmt: skip
"""Names of files and folders, in lower case, whatever lies in them."""

STARTS = ("._", ".nfs", ".fuse_hidden", ".smbdelete", ".trash-", "~$")
"""Beginnings of such names."""


def is_junk(path: str) -> bool:
    """Return whether a path leads to (or through) something that no instrument and no person put there as data."""
    parts = path.lower().split("/")
    return any(part in NAMES or part.startswith(STARTS) for part in parts)
