"""What the rows of a file list must be: the rules of `FileEntry` and of a plate's files, on whole columns."""

import pyarrow as pa
import pyarrow.compute as pc

from coda.contracts.manifest import MAX_FILE_BYTES, PlateEntry, confined, files_and_folders
from coda.errors import Problem
from coda.plates.tabular.wording import shown

SHOWN = 5
"""Values that a problem quotes; the rest are counted."""

LONGEST_PART = 255
"""Bytes of a path up to which none of its parts can be too long for a disk."""

_NAME = r"[^/\\\x00-\x1f\x7f]+"
_PLAIN = rf"\A{_NAME}(?:/{_NAME})*\z"
_DOTS = r"(?:\A|/)\.\.?(?:/|\z)"
_DIGEST = r"\A[0-9a-f]{64}\z"


def problems_of_rows(table: pa.Table, entry: PlateEntry, where: str) -> list[Problem]:
    """Return all that is wrong with the rows of a file list.

    Args:
        table: Columns `path` and `sha256` (string) and `size_bytes` (int64), in UTF-8 and without gaps.
        entry: The plate whose list it is.
        where: The list, for messages.
    """
    paths = table.column("path").combine_chunks()
    sizes, digests = table.column("size_bytes"), table.column("sha256")
    beyond = pc.or_(pc.less(sizes, 0), pc.greater(sizes, MAX_FILE_BYTES))
    no_digest = pc.invert(pc.match_substring_regex(digests, _DIGEST))
    found = [
        (_unconfined(paths), "paths", "relative paths below the batch in their shortest form, with forward slashes"),
        (_repeated(paths), "paths that are listed more than once", "each file once"),
        (_listed_here(paths, entry), "paths that the manifest lists itself", "the images of the plate alone"),
        (_folders_too(paths, entry), "paths that are files and folders", "files and folders of different names"),
        (_texts(sizes, beyond), "sizes out of range", f"0 to {MAX_FILE_BYTES} bytes"),
        (_texts(digests, no_digest), "values that are no SHA-256", "64 digits and letters a to f"),
    ]
    remedy = "Write the list again from the files as they are, then the manifest."
    return [
        Problem(where, f"{len(values)} {what} ({_first(values)})", expected, remedy)
        for values, what, expected in found
        if values
    ]


def _breaks_a_rule(path: str) -> bool:
    """Return whether a path is none that a manifest may hold."""
    try:
        confined(path)
    except ValueError:
        return True
    return False


def _unconfined(paths: pa.Array) -> list[str]:
    """Return the paths that break the manifest's rule; only those that look unusual are asked about one by one."""
    usual = pc.and_(
        pc.match_substring_regex(paths, _PLAIN),
        pc.and_(
            pc.invert(pc.match_substring_regex(paths, _DOTS)),
            pc.less_equal(pc.binary_length(paths), LONGEST_PART),
        ),
    )
    return [path for path in _texts(paths, pc.invert(usual)) if _breaks_a_rule(path)]


def _repeated(paths: pa.Array) -> list[str]:
    counts = pc.value_counts(paths)
    return _texts(counts.field("values"), pc.greater(counts.field("counts"), 1))


def _listed_here(paths: pa.Array, entry: PlateEntry) -> list[str]:
    own = [file.path for file in entry.files]
    if entry.file_list is not None:
        own.append(entry.file_list.path)
    return _texts(paths, pc.is_in(paths, pa.array(own, pa.string())))


def _folders_too(paths: pa.Array, entry: PlateEntry) -> list[str]:
    """Return files that are folders of other files: object storage may hold both 'a' and 'a/b', a disk cannot."""
    return files_and_folders([*paths.to_pylist(), *(file.path for file in entry.files)])


def _texts(column: pa.Array | pa.ChunkedArray, chosen: pa.Array | pa.ChunkedArray) -> list[str]:
    """Return the chosen values of a column as text."""
    return [str(value) for value in column.filter(chosen).to_pylist()]


def _first(values: list[str]) -> str:
    more = f", and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(map(shown, values[:SHOWN])) + more
