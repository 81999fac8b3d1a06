"""SplitFiles: a delivery whose tables lie beside the manifest and whose images lie elsewhere."""

from collections.abc import Collection

from coda.contracts.manifest import BatchManifest
from coda.plates.batch_files import BatchFiles


def table_paths(manifest: BatchManifest) -> frozenset[str]:
    """Return the paths of the files that always lie beside the manifest: each plate's two tables and its file list."""
    lists = (plate.file_list.path for plate in manifest.plates if plate.file_list is not None)
    return frozenset((*(path for plate in manifest.plates for path in (plate.plate_map, plate.load_data)), *lists))


class SplitFiles:
    """Two places of files as one; see `coda.plates.batch_files.BatchFiles`."""

    def __init__(self, beside: BatchFiles, elsewhere: BatchFiles, tables: Collection[str]) -> None:
        """Keep both places.

        Args:
            beside: Files beside the manifest.
            elsewhere: Files at the manifest's `images_at`.
            tables: Paths that are read beside the manifest; all others are read elsewhere.
        """
        self.beside = beside
        self.elsewhere = elsewhere
        self.tables = frozenset(tables)

    def read(self, path: str, *, at_most: int) -> bytes:
        """Return the bytes of a file; see `coda.plates.batch_files.BatchFiles`."""
        return self._of(path).read(path, at_most=at_most)

    def size(self, path: str) -> int | None:
        """Return the size in bytes, or None; see `coda.plates.batch_files.BatchFiles`."""
        return self._of(path).size(path)

    def __repr__(self) -> str:
        return f"SplitFiles({self.beside!r}, {self.elsewhere!r})"

    def _of(self, path: str) -> BatchFiles:
        return self.beside if path in self.tables else self.elsewhere
