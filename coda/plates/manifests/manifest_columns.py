"""What a manifest lists and what is there of it, as columns and numbers: some forty bytes a file, however many."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import PurePosixPath
from typing import Self

import numpy as np
from numpy.typing import NDArray

from coda.contracts.manifest import FileEntry, FileListRef, PlateEntry
from coda.plates.batch_files import BatchFiles
from coda.plates.file_lists import read_file_list
from coda.plates.folders import folders_of
from coda.plates.manifests.places import Place
from coda.plates.name_forms import by_form, matched
from coda.plates.tree import TreeFile

AT_ONCE = 10_000
"""Files of a listing that are looked up together."""

Keys = NDArray[np.bytes_]
"""Names as numbers of 16 bytes: two names share one with a chance of one in 10^38."""


def keys_of(names: Iterable[str]) -> Keys:
    """Return names as numbers by which they are found again."""
    # names of a disk may hold bytes that are no text
    return np.array(
        [blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).digest() for name in names], "S16"
    )


@dataclass(frozen=True)
class PlateFiles:
    """All files of a plate, its file list among them: three columns of the same length.

    Attributes:
        paths: Where they lie.
        sizes: Their bytes.
        digests: Their SHA-256.
        images: Which of them are images.
    """

    paths: list[str]
    sizes: NDArray[np.int64]
    digests: list[str]
    images: NDArray[np.bool_]

    @classmethod
    def of(cls, files: BatchFiles, plate: PlateEntry, *, listed: bool = True) -> Self:
        """Return the files of a plate, images first where they are in a file list.

        Args:
            files: The delivery.
            plate: The plate.
            listed: Whether its file list, if it has one, is read; else its images are left out.

        Raises:
            FileListError: Its file list cannot be used.
            TransientError: The storage is away.
        """
        paths, sizes, digests = list[str](), list[int](), list[str]()
        if plate.file_list is not None and listed:
            table = read_file_list(files, plate).table
            paths, sizes, digests = (table.column(name).to_pylist() for name in ("path", "size_bytes", "sha256"))
        own: list[FileEntry | FileListRef] = [*plate.files]
        others = set(plate.not_images)
        if plate.file_list is not None:
            own.append(plate.file_list)
            others.add(plate.file_list.path)
        images = [True] * len(paths) + [file.path not in others for file in own]
        return cls(
            paths + [file.path for file in own], np.array(sizes + [file.size_bytes for file in own], np.int64),
            digests + [file.sha256 for file in own], np.array(images, np.bool_),
        )  # fmt: skip

    @property
    def folders(self) -> frozenset[str]:
        """Folders that the files lie in."""
        return frozenset(path.rpartition("/")[0] for path in self.paths)


class Known:
    """All files of a manifest by the numbers of their names, and the contents that several of them share."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._names: list[Keys] = []
        self._sizes: list[NDArray[np.int64]] = []
        self._contents: list[Keys] = []
        self.odd: set[str] = set()
        """Names that may be stored in another normal form."""

    def add(self, files: PlateFiles) -> None:
        """Take the files of a plate."""
        self._names.append(keys_of(files.paths))
        self._sizes.append(files.sizes)
        self._contents.append(_contents(files)[files.images])
        self.odd |= {path for path in files.paths if not path.isascii()}

    def close(self) -> None:
        """Sort what was taken."""
        names = np.concatenate(self._names)
        self.keys, first, times = np.unique(names, return_index=True, return_counts=True)
        self.size_bytes = int(np.concatenate(self._sizes)[first].sum())
        self.repeated, self._repetitions = self.keys[times > 1], times[times > 1]
        values, times = np.unique(np.concatenate(self._contents), return_counts=True)
        self._shared = values[times > 1]
        self._names, self._sizes, self._contents = [], [], []

    def times(self, key: Keys) -> int:
        """Return how often a repeated name is listed."""
        return int(self._repetitions[np.searchsorted(self.repeated, key)[0]])

    def sharing(self, files: PlateFiles) -> NDArray[np.bool_]:
        """Return which files of a plate have the content of another image of the batch, themselves perhaps."""
        return np.isin(_contents(files), self._shared) & files.images

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Return the places of names among `keys`; -1 for those that the manifest does not list."""
        places = np.searchsorted(self.keys, keys)
        places[places == len(self.keys)] = 0
        return np.where(self.keys[places] == keys, places, -1)


def _contents(files: PlateFiles) -> Keys:
    return np.frombuffer(bytes.fromhex("".join(digest[:32] for digest in files.digests)), "S16")


class Presence:
    """What one place holds of the files of a manifest, and what else."""

    def __init__(self, place: Place, known: Known, folders: Sequence[str], own: Sequence[str], *, marks: bool) -> None:
        """List the place.

        Args:
            place: The place.
            known: The files of the manifest.
            folders: Folders to list, none inside another.
            own: Files that are there besides, and no matter.
            marks: Whether the place shall keep the marks of what it lists, for digests.
        """
        self.place = place
        self.forms = by_form(())
        """Names that are there by their normal form, where a name of the manifest may be stored in another."""
        self.stored: dict[str, str] = {}
        """Name of the manifest -> the other one that it is stored under."""
        self.extra: dict[tuple[str, str], tuple[int, str]] = {}
        """Folder and ending -> how many files there are that nothing lists, and the first of them."""
        self._known = known
        self._sizes = np.full(len(known.keys), -1, np.int64)
        listing: Iterator[TreeFile] = (
            file for folder in folders for file in (place.files(folder) if marks else place.walk(folder))
        )
        others = {*own}
        if known.odd:
            listing = self._settle(list(listing))
            others |= {*self.stored.values()}
        while chunk := list(islice(listing, AT_ONCE)):
            self._take(chunk, others)

    def _settle(self, listing: list[TreeFile]) -> Iterator[TreeFile]:
        """Find the names that are stored in another form; only then are all names kept."""
        there = {file.path: file.size_bytes for file in listing}
        self.forms = by_form(there)
        self.stored = {name: other for name, other in matched(self._known.odd, there).items() if name != other}
        for name, other in self.stored.items():
            self._sizes[self._known.find(keys_of([name]))] = there[other]
        return iter(listing)

    def _take(self, files: Sequence[TreeFile], others: set[str]) -> None:
        places = self._known.find(keys_of(file.path for file in files))
        here = places >= 0
        self._sizes[places[here]] = np.array([file.size_bytes for file in files], np.int64)[here]
        for number in np.flatnonzero(~here).tolist():
            path = files[number].path
            if path not in others:
                pure = PurePosixPath(path)
                count, first = self.extra.get((str(pure.parent), pure.suffix), (0, path))
                self.extra[str(pure.parent), pure.suffix] = (count + 1, min(first, path))

    def sizes(self, paths: Iterable[str]) -> NDArray[np.int64]:
        """Return the sizes of files of the manifest as they are there; -1 for those that are not."""
        return self._sizes[self._known.find(keys_of(paths))]


def folders_at(folders: Iterable[str]) -> tuple[str, ...]:
    """Return few folders that hold all of the folders given; see `coda.plates.folders.folders_of`."""
    return folders_of(f"{folder}/file" if folder else "file" for folder in folders)
