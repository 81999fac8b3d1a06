"""Holding a manifest against what is there: missing, extra, duplicated, of another size, of other content."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coda.contracts.manifest import MANIFEST_NAME, BatchManifest, PlateEntry
from coda.plates.file_lists import FileListError
from coda.plates.manifests.digests import Progress, verify
from coda.plates.manifests.manifest_columns import Known, PlateFiles, Presence, folders_at, keys_of
from coda.plates.manifests.places import Place, PlaceFiles
from coda.plates.name_forms import absent
from coda.plates.split_files import table_paths
from coda.plates.tree import TreeFile

Kind = Literal["missing", "wrong size", "wrong content", "duplicated", "extra"]

WRONG: tuple[Kind, ...] = ("missing", "wrong size", "wrong content", "duplicated")
"""What makes a delivery wrong; files that no manifest lists are told, and never read."""

Telling = Callable[[int, int], AbstractContextManager[Progress]]
"""Opened with the number of files and of bytes in all; gives what is told of each file."""

_LIST = "the file list as the manifest names it; nothing else of this plate is known"


@dataclass(frozen=True)
class Discrepancy:
    """One thing that was found.

    Attributes:
        kind: What it is.
        plate: Plate that lists the file; empty for files that none lists.
        path: File; for extra files a folder and the ending of their names.
        found: What is there.
        expected: What should be.
        count: Files that this stands for.
    """

    kind: Kind
    plate: str
    path: str
    found: str
    expected: str
    count: int = 1


@dataclass(frozen=True)
class Checked:
    """What came of a check.

    Attributes:
        findings: All of them, the gravest kind first, then in the order of plates and paths.
        files: Files that the manifest lists, each once.
        size_bytes: Their bytes as listed.
        read: Files whose content was compared.
    """

    findings: tuple[Discrepancy, ...]
    files: int
    size_bytes: int
    read: int

    def count(self, kind: Kind) -> int:
        """Return how many files there are of one kind."""
        return sum(item.count for item in self.findings if item.kind == kind)

    @property
    def wrong(self) -> int:
        """Number of files with which something is wrong."""
        return sum(self.count(kind) for kind in WRONG)


def check(
    manifest: BatchManifest,
    beside: Place,
    elsewhere: Place | None,
    *,
    digests: int = 0,
    telling: Telling | None = None,
) -> Checked:
    """Compare a manifest with its files, one plate after the other.

    Args:
        manifest: The manifest.
        beside: Its own folder.
        elsewhere: The place of its images when they lie elsewhere.
        digests: Files that are read at once to compare contents; 0 compares names and sizes alone.
        telling: Opened with the number of files and of bytes that are listed; told of every file that was read.

    Raises:
        TransientError: A storage is away.
    """
    files, tables = PlaceFiles(beside), table_paths(manifest)
    known, folders = Known(), set[str]()
    faults: dict[str, FileListError] = {}
    for plate in manifest.plates:
        try:
            listed = PlateFiles.of(files, plate)
        except FileListError as error:
            faults[plate.plate] = error
            listed = PlateFiles.of(files, plate, listed=False)
        known.add(listed)
        folders |= listed.folders if elsewhere is not None else set()
    known.close()
    # the batch's own folder as a whole; of another place, which holds more, the folders that the batch uses
    near = Presence(beside, known, [""], [MANIFEST_NAME], marks=digests > 0)
    far = near if elsewhere is None else Presence(elsewhere, known, folders_at(folders), [], marks=digests > 0)
    judge = _Judge(known, near, far, tables if elsewhere is not None else frozenset(), faults, digests)
    findings: list[Discrepancy] = []
    with (telling or _silent)(len(known.keys), known.size_bytes) as progress:
        for plate in manifest.plates:
            findings += judge.plate(plate, PlateFiles.of(files, plate, listed=plate.plate not in faults), progress)
    findings += [item for place in dict.fromkeys((near, far)) for item in _extra(place)]
    order = {kind: number for number, kind in enumerate((*WRONG, "extra"))}
    findings.sort(key=lambda item: (order[item.kind], item.plate, item.path))
    return Checked(tuple(findings), len(known.keys), known.size_bytes, judge.read)


@contextmanager
def _silent(_files: int, _size: int) -> Iterator[Progress]:
    yield lambda *_: None


class _Judge:
    """Holds the files of plates, in the order of the manifest, against what is there."""

    def __init__(
        self, known: Known, near: Presence, far: Presence, tables: frozenset[str], faults: Mapping[str, FileListError],
        workers: int,
    ) -> None:  # fmt: skip
        self.read = 0
        self._known, self._near, self._far, self._tables = known, near, far, tables
        self._faults, self._workers = faults, workers
        self._times = dict.fromkeys(known.repeated.tolist(), 0)
        self._first: dict[str, str] = {}

    def plate(self, plate: PlateEntry, files: PlateFiles, progress: Progress) -> Iterator[Discrepancy]:
        """Yield what is wrong with the files of a plate."""
        yield from self._duplicated(plate.plate, files)
        here = np.array([path in self._tables for path in files.paths], np.bool_)
        for place, chosen in ((self._near, here), (self._far, ~here)):
            numbers = np.flatnonzero(chosen)
            sizes = place.sizes(files.paths[number] for number in numbers)
            listed = files.sizes[numbers]
            for number, size in zip(numbers[sizes != listed], sizes[sizes != listed], strict=True):
                yield _missing_or_other(plate.plate, files.paths[number], int(files.sizes[number]), int(size), place)
            same = numbers[sizes == listed]
            fault = self._faults.get(plate.plate)
            if fault is not None and plate.file_list is not None:
                of_list = [number for number in same if files.paths[number] == plate.file_list.path]
                found = "; ".join(problem.found for problem in fault.problems)
                yield from (
                    Discrepancy("wrong content", plate.plate, files.paths[number], found, _LIST) for number in of_list
                )
                same = same[~np.isin(same, of_list)]
            if self._workers:
                yield from self._other_content(plate.plate, files, same, place, progress)

    def _duplicated(self, plate: str, files: PlateFiles) -> Iterator[Discrepancy]:
        """Yield files that several plates list, and images with exactly the content of another one."""
        keys = keys_of(files.paths)
        repeated = np.isin(keys, self._known.repeated)
        for number in np.flatnonzero(repeated):
            key = keys[number : number + 1].tolist()[0]
            self._times[key] += 1
            if self._times[key] == 1:
                times = self._known.times(keys[number : number + 1])
                yield Discrepancy("duplicated", plate, files.paths[number], f"listed by {times} plates", "one plate")
        for number in np.flatnonzero(self._known.sharing(files) & ~repeated):
            path = files.paths[number]
            other = self._first.setdefault(files.digests[number], path)
            if other != path:
                yield Discrepancy("duplicated", plate, path, f"the content of {other}", "an image of its own")

    def _other_content(
        self, plate: str, files: PlateFiles, numbers: NDArray[np.int64], place: Presence, progress: Progress
    ) -> Iterator[Discrepancy]:
        stored = {place.stored.get(files.paths[number], files.paths[number]): number for number in numbers.tolist()}
        asked = [TreeFile(path, int(files.sizes[number])) for path, number in stored.items()]
        self.read += len(asked)
        for file, outcome in verify(place.place, asked, workers=self._workers, progress=progress):
            path, digest = files.paths[stored[file.path]], files.digests[stored[file.path]]
            if not isinstance(outcome, str):
                found = outcome.problems[0].found if outcome.problems else outcome.message
                yield Discrepancy("wrong content", plate, path, found, "a file that can be read")
            elif outcome != digest:
                yield Discrepancy("wrong content", plate, path, f"SHA-256 {outcome}", f"SHA-256 {digest}")


def _missing_or_other(plate: str, path: str, listed: int, there: int, place: Presence) -> Discrepancy:
    if there >= 0:
        return Discrepancy("wrong size", plate, path, f"{there} bytes", f"{listed} bytes")
    name = absent(path, place.forms)
    return Discrepancy("missing", plate, path, "nothing" if name == path else f"no {name}", f"{listed} bytes")


def _extra(presence: Presence) -> Iterator[Discrepancy]:
    """Yield the files that nothing lists, one discrepancy for each folder and ending."""
    for (folder, ending), (count, first) in presence.extra.items():
        shown = first if count == 1 else f"{folder}/*{ending}".removeprefix("./")
        found = "a file" if count == 1 else f"{count} files (the first: {first})"
        yield Discrepancy("extra", "", shown, f"{found} in {presence.place.where}", "only files of the manifest", count)
