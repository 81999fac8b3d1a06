"""Holding a manifest against what is there: missing, extra, duplicated, of another size, of other content."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from coda.contracts.manifest import MANIFEST_NAME, BatchManifest, FileEntry, PlateEntry
from coda.plates.folders import folders_of
from coda.plates.manifests.digests import Progress, verify
from coda.plates.manifests.places import Place
from coda.plates.name_forms import absent, by_form, matched
from coda.plates.split_files import table_paths
from coda.plates.tree import TreeFile

Kind = Literal["missing", "wrong size", "wrong content", "duplicated", "extra"]

WRONG: tuple[Kind, ...] = ("missing", "wrong size", "wrong content", "duplicated")
"""What makes a delivery wrong; files that no manifest lists are told, and never read."""


@dataclass(frozen=True)
class Finding:
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

    findings: tuple[Finding, ...]
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
    progress: Progress | None = None,
) -> Checked:
    """Compare a manifest with its files.

    Args:
        manifest: The manifest.
        beside: Its own folder.
        elsewhere: The place of its images when they lie elsewhere.
        digests: Files that are read at once to compare contents; 0 compares names and sizes alone.
        progress: Told of every file that was read.

    Raises:
        TransientError: A storage is away.
    """
    tables = table_paths(manifest)
    entries = {file.path: file for plate in manifest.plates for file in plate.files}
    findings: list[Finding] = list(_duplicated(manifest))
    read = 0
    for place, wanted in _places(entries, tables, beside, elsewhere):
        there = {file.path: file for file in _listing(place, wanted, whole=place is beside)}
        stored = matched(wanted, there)
        listed = {path: there[name] for path, name in stored.items()}
        findings += _missing_or_other(manifest, wanted, listed, by_form(there))
        known = {*entries, *stored.values(), *([MANIFEST_NAME] if place is beside else [])}
        findings += _extra(set(there) - known, place)
        if digests:
            same = {path: file for path, file in listed.items() if file.size_bytes == wanted[path].size_bytes}
            read += len(same)
            findings += _other_content(manifest, place, same, digests, progress or (lambda *_: None))
    order = {kind: number for number, kind in enumerate((*WRONG, "extra"))}
    findings.sort(key=lambda item: (order[item.kind], item.plate, item.path))
    size = sum(entry.size_bytes for entry in entries.values())
    return Checked(tuple(findings), len(entries), size, read)


def _places(
    entries: dict[str, FileEntry], tables: frozenset[str], beside: Place, elsewhere: Place | None
) -> Iterator[tuple[Place, dict[str, FileEntry]]]:
    if elsewhere is None:
        yield beside, entries
        return
    yield beside, {path: entry for path, entry in entries.items() if path in tables}
    yield elsewhere, {path: entry for path, entry in entries.items() if path not in tables}


def _listing(place: Place, wanted: dict[str, FileEntry], *, whole: bool) -> Iterator[TreeFile]:
    """Yield the files of a batch's own folder; of another place, which holds more, those of the folders it uses."""
    for folder in ("",) if whole else folders_of(wanted):
        yield from place.files(folder)


def _missing_or_other(
    manifest: BatchManifest,
    wanted: dict[str, FileEntry],
    listed: dict[str, TreeFile],
    forms: Mapping[str, list[str]],
) -> Iterator[Finding]:
    for plate, entry in _each(manifest):
        if entry.path not in wanted:
            continue
        file = listed.get(entry.path)
        if file is None:
            name = absent(entry.path, forms)
            found = "nothing" if name == entry.path else f"no {name}"
            yield Finding("missing", plate.plate, entry.path, found, f"{entry.size_bytes} bytes")
        elif file.size_bytes != entry.size_bytes:
            found, expected = f"{file.size_bytes} bytes", f"{entry.size_bytes} bytes"
            yield Finding("wrong size", plate.plate, entry.path, found, expected)


def _other_content(
    manifest: BatchManifest, place: Place, files: dict[str, TreeFile], workers: int, progress: Progress
) -> Iterator[Finding]:
    named = {file.path: path for path, file in files.items()}
    listed_by = {entry.path: (plate.plate, entry) for plate, entry in _each(manifest)}
    for file, outcome in verify(place, list(files.values()), workers=workers, progress=progress):
        plate, entry = listed_by[named[file.path]]
        if not isinstance(outcome, str):
            found = outcome.problems[0].found if outcome.problems else outcome.message
            yield Finding("wrong content", plate, entry.path, found, "a file that can be read")
        elif outcome != entry.sha256:
            yield Finding("wrong content", plate, entry.path, f"SHA-256 {outcome}", f"SHA-256 {entry.sha256}")


def _duplicated(manifest: BatchManifest) -> Iterator[Finding]:
    """Yield files that several plates list, and images with exactly the content of another one."""
    times = Counter(entry.path for _, entry in _each(manifest))
    shared = {path for plate in manifest.plates for path in plate.not_images}
    first: dict[str, str] = {}
    told: set[str] = set()
    for plate, entry in _each(manifest):
        if times[entry.path] > 1 and entry.path not in told:
            told.add(entry.path)
            yield Finding("duplicated", plate.plate, entry.path, f"listed by {times[entry.path]} plates", "one plate")
        elif times[entry.path] == 1 and entry.path not in shared:
            other = first.setdefault(entry.sha256, entry.path)
            if other != entry.path:
                yield Finding("duplicated", plate.plate, entry.path, f"the content of {other}", "an image of its own")


def _extra(paths: set[str], place: Place) -> Iterator[Finding]:
    """Yield the files that nothing lists, one finding for each folder and ending."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in paths:
        pure = PurePosixPath(path)
        groups[str(pure.parent), pure.suffix].append(path)
    for (folder, ending), names in groups.items():
        shown = names[0] if len(names) == 1 else f"{folder}/*{ending}".removeprefix("./")
        found = "a file" if len(names) == 1 else f"{len(names)} files (the first: {min(names)})"
        yield Finding("extra", "", shown, f"{found} in {place.where}", "only files of the manifest", len(names))


def _each(manifest: BatchManifest) -> Iterator[tuple[PlateEntry, FileEntry]]:
    return ((plate, entry) for plate in manifest.plates for entry in plate.files)
