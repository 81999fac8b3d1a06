"""Which delivered file a row of a table means."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from coda.plates.tabular.wording import shown


class FileResolver:
    """Finds the delivered file that a row of load_data means.

    Tables name files where the microscope or the bucket had them (an absolute path, an `s3://` address, a folder that
    was renamed since). The file is the one of the manifest that shares the longest end of the path with that name, so
    nothing outside the manifest can ever be read, whatever a table says.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        """Index the manifest's paths by file name."""
        self._by_name: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for path in paths:
            parts = PurePosixPath(path).parts
            self._by_name[parts[-1]].append(parts)

    def resolve(self, reference: str) -> str:
        """Return the manifest's path for a reference such as 's3://bucket/a/b/c.tif' or 'b/c.tif'.

        Raises:
            LookupError: No file of the manifest has this name, or several fit equally well; the text says which.
        """
        parts = _parts(reference)
        candidates = self._by_name.get(parts[-1], []) if parts else []
        if not candidates:
            message = f"{shown(reference)} is not among the files of the manifest"
            raise LookupError(message)
        shared = [_common_end(parts, candidate) for candidate in candidates]
        best = max(shared)
        if shared.count(best) > 1:
            message = f"{shown(reference)} may be any of {shared.count(best)} files of the manifest"
            raise LookupError(message)
        return "/".join(candidates[shared.index(best)])


def _parts(reference: str) -> tuple[str, ...]:
    text = unquote(urlsplit(reference).path) if "://" in reference else reference
    return tuple(part for part in text.replace("\\", "/").split("/") if part not in {"", "."})


def _common_end(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    count = 0
    for a, b in zip(reversed(left), reversed(right), strict=False):
        if a != b:
            break
        count += 1
    return count
