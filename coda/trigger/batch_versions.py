"""Batch versions: a manifest that was found, what it says, and whether its files are all there."""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from coda.contracts import MANIFEST_NAME, BatchManifest
from coda.contracts.manifest import MAX_MANIFEST_BYTES, SMALLER, FileEntry, PlateEntry
from coda.errors import CodaError, ContractError, Problem
from coda.plates.folders import folders_of
from coda.plates.name_forms import absent, by_form, matched
from coda.plates.split_files import table_paths
from coda.settings import Settings
from coda.storage.failures import ObjectNotFoundError, ObjectTooLargeError
from coda.storage.image_places import images_place
from coda.storage.named_places import images_tree
from coda.storage.objects import ObjectStore

SHOWN = 5
"""Files named in a reason; the rest are counted."""

MOST_LISTED = 2_000
"""Files of a folder after which those that were not met are asked for one by one: tables may lie among images."""

MAX_NAME = 177
"""Longest name of source and batch in a run's name, which has at most 200 characters in all (`coda.runners.port`)."""

_SLUG = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


@dataclass(frozen=True)
class BatchVersion:
    """One version of one batch: what is claimed, run and recorded once.

    Attributes:
        source: Laboratory, from the key of the manifest.
        batch: Batch, from the key of the manifest.
        digest: SHA-256 of the manifest's canonical JSON; of its bytes when it cannot be read.
        key: Key of the manifest below the landing prefix.
    """

    source: str
    batch: str
    digest: str
    key: str

    @property
    def folder(self) -> str:
        """Folder of this version in the ledger."""
        return f"ledger/{self.source}/{self.batch}/{self.digest[:16]}"

    @property
    def run_id(self) -> str:
        """Name of the one run for this version: the same after every crash, so it can be looked up.

        Names of source and batch that are too long together are cut, with a hash of both in their place.
        """
        name = f"{self.source}-{self.batch}"
        if len(name) > MAX_NAME:
            digest = hashlib.sha256(f"{self.source}/{self.batch}".encode()).hexdigest()[:12]
            name = f"{self.source[:72]}-{self.batch[:72]}-{digest}"
        return f"adapt-{name}-{self.digest[:16]}"


@dataclass(frozen=True)
class Arrival:
    """A manifest as it was found.

    Attributes:
        version: What it is a version of.
        manifest: The document; none when it cannot be used.
        problems: Why it cannot be used, all of it.
        etag: Entity tag of the very bytes that were read; empty where they were not.
    """

    version: BatchVersion
    manifest: BatchManifest | None
    problems: tuple[Problem, ...] = ()
    etag: str = ""


def is_manifest(key: str) -> bool:
    """Return whether a key below the landing prefix is that of a manifest."""
    return key == MANIFEST_NAME or key.endswith(f"/{MANIFEST_NAME}")


def read_arrival(landing: ObjectStore, key: str, settings: Settings) -> Arrival | None:
    """Read the manifest at `key`.

    Args:
        landing: The landing prefix.
        key: Key below it.
        settings: Which other places than the manifest's own folder are read.

    Returns:
        What was found; a manifest that cannot be used comes with its problems, never as an exception. None when the
        object is not there (any more).

    Raises:
        TransientError: The object store is away.
    """
    where = landing.url(key)
    try:
        # in bounds by the answer that brings the bytes: between a question and a reading the object may be another one
        body, etag = landing.get_tagged(key, at_most=MAX_MANIFEST_BYTES)
    except ObjectNotFoundError:
        return None
    except ObjectTooLargeError as error:
        found = error.problems[0].found
        expected = f"at most {MAX_MANIFEST_BYTES} bytes"
        problem = Problem(where, found, expected, SMALLER)
        source, batch, _ = _place(where, key)
        return Arrival(
            BatchVersion(source, batch, hashlib.sha256(f"{key} {found}".encode()).hexdigest(), key), None, (problem,)
        )
    source, batch, problems = _place(where, key)
    try:
        manifest = BatchManifest.parse(body, where)
    except ContractError as error:
        digest = hashlib.sha256(body).hexdigest()
        return Arrival(BatchVersion(source, batch, digest, key), None, (*problems, *error.problems), etag)
    if not problems:
        for name, said, lies in (("source", manifest.source, source), ("batch", manifest.batch, batch)):
            if said != lies:
                remedy = f"Write the manifest to {manifest.source}/{manifest.batch}/{MANIFEST_NAME} or correct it."
                problems.append(Problem(f"{where}: {name}", repr(said), f"{lies!r}, as in its key", remedy))
    try:
        if manifest.images_at is not None:
            images_place(manifest.images_at, settings)
    except ContractError as error:
        problems += [Problem(f"{where}: {item.where}", item.found, item.expected, item.remedy)
                     for item in error.problems]  # fmt: skip
    version = BatchVersion(source, batch, manifest.digest(), key)
    return Arrival(version, None if problems else manifest, tuple(problems), etag)


@dataclass(frozen=True)
class Missing:
    """Files of a manifest that are not there, or not with their size.

    Attributes:
        count: How many.
        problems: One for each plate that lacks any.
        files: The files themselves; empty where their place cannot be read.
    """

    count: int
    problems: tuple[Problem, ...]
    files: tuple[FileEntry, ...] = ()

    def __bool__(self) -> bool:
        """Return whether any file is missing."""
        return self.count > 0


def missing_files(landing: ObjectStore, version: BatchVersion, manifest: BatchManifest, settings: Settings) -> Missing:
    """Return which files of the manifest are not there with their size, plate by plate.

    Of a plate with a file list, the list and what lies beside it are asked for, and no image: ingest finds those that
    are missing. Few listings, whatever the number of files: where all plates have lists, one of each folder that holds
    these (and single questions in a folder that holds much more); else one of the batch's folder, and where the images
    lie elsewhere one of each folder that holds them. Digests are checked where the bytes are read anyway, in ingest.

    Args:
        landing: The landing prefix.
        version: The version that the manifest is.
        manifest: The manifest.
        settings: Which other places are read.

    Raises:
        TransientError: The landing prefix is away. Another place that is away, or that cannot be read, is a problem of
            this batch alone.
    """
    folder = version.key.removesuffix(MANIFEST_NAME)
    tables = table_paths(manifest)
    asked = {plate.plate: _asked(plate, tables, split=manifest.images_at is not None) for plate in manifest.plates}
    wanted = {file.path for files in asked.values() for file in files}
    if all(plate.file_list is not None for plate in manifest.plates):
        beside = _sizes_beside(landing, folder, wanted)
    else:
        beside = {item.key.removeprefix(folder): item.size for item in landing.list(folder)}
    sizes, forms = _as_wanted(wanted, beside), by_form(beside)
    paths = [file.path for files in asked.values() for file in files if file.path not in tables]
    if manifest.images_at is not None and paths:
        try:
            elsewhere = _sizes_at(manifest.images_at, paths, settings)
        except CodaError as error:
            remedy = "Nothing is to be done if it comes back; else correct images_at, or the rights to read there."
            problem = Problem("images_at", error.message, f"images at {manifest.images_at}", remedy)
            return Missing(len(paths), (problem, *error.problems))
        sizes = _as_wanted(tables, beside) | _as_wanted(paths, elsewhere)
        forms = by_form((*tables & set(beside), *elsewhere))
    count, problems, short = 0, [], list[FileEntry]()
    for plate, files in asked.items():
        short += [file for file in files if sizes.get(file.path) != file.size_bytes]
        lacking = [file.path for file in files if file.path not in sizes]
        other = [
            f"{file.path} has {sizes[file.path]} bytes instead of {file.size_bytes}"
            for file in files
            if sizes.get(file.path, file.size_bytes) != file.size_bytes
        ]
        count += len(lacking) + len(other)
        found = []
        if len(lacking) == len(files):
            found.append(f"none of its {len(lacking)} files")
        elif lacking:
            names = _first([absent(path, forms) for path in lacking])
            found.append(f"{len(lacking)} of {len(files)} files absent ({names})")
        if other:
            found.append(f"{len(other)} of {len(files)} files with another size ({_first(other)})")
        if found:
            expected = "every file of the manifest, whole"
            remedy = "Upload these files (again); the batch then starts by itself."
            problems.append(Problem(f"plate {plate}", " and ".join(found), expected, remedy))
    return Missing(count, tuple(problems), tuple(short))


def _asked(plate: PlateEntry, tables: Collection[str], *, split: bool) -> tuple[FileEntry, ...]:
    """Return the files of a plate that are asked for: all that are listed; with a file list, those beside it."""
    ref = plate.file_list
    if ref is None:
        return plate.files
    beside = (file for file in plate.files if not split or file.path in tables)
    return (*beside, FileEntry(path=ref.path, size_bytes=ref.size_bytes, sha256=ref.sha256))


def _sizes_beside(landing: ObjectStore, folder: str, paths: Collection[str]) -> dict[str, int]:
    """Return the sizes of files beside a manifest without listing folders to their end that hold many others."""
    most = MOST_LISTED if all(path.isascii() for path in paths) else None  # other names may be stored in another form
    sizes: dict[str, int] = {}
    cut = False
    for under in folders_of(paths):
        listed = list(islice(landing.list(f"{folder}{under}/" if under else folder), most))
        sizes |= {item.key.removeprefix(folder): item.size for item in listed}
        cut = cut or len(listed) == most
    for path in sorted(set(paths) - set(sizes)) if cut else ():
        size = landing.size(f"{folder}{path}")
        if size is not None:
            sizes[path] = size
    return sizes


def _sizes_at(images_at: str, paths: Sequence[str], settings: Settings) -> dict[str, int]:
    tree = images_tree(images_at, settings)
    return {file.path: file.size_bytes for folder in folders_of(paths) for file in tree.files(folder)}


def _as_wanted(paths: Collection[str], sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes of the stored files that paths of the manifest mean, by these paths."""
    return {path: sizes[stored] for path, stored in matched(paths, sizes).items()}


def _first(names: Sequence[str], most: int = 3) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def in_words(problems: Iterable[Problem]) -> tuple[str, ...]:
    """Return problems as lines; beyond the first few only their number."""
    lines = [str(problem) for problem in problems]
    rest = len(lines) - SHOWN
    return tuple(lines[:SHOWN]) + ((f"... and {rest} more",) if rest > 0 else ())


def require_version(dataset: Path, digest: str) -> None:
    """Refuse a dataset that was read from another version of its manifest than the one that was claimed.

    A producer may replace the manifest between the claim and the run; the newer version has a claim and a run of its
    own, and this run must not take its place.

    Args:
        dataset: Dataset folder from ingest.
        digest: Digest of the claimed manifest; empty when nothing was claimed.

    Raises:
        ContractError: A manifest in the folder has another digest.
    """
    if not digest:
        return
    for path in sorted(dataset.glob(f"*/*/{MANIFEST_NAME}")):
        found = BatchManifest.read(path).digest()
        if found != digest:
            remedy = "Nothing is to be done: the newer version is run by itself."
            problem = Problem(f"{path.parent.parent.name}/{path.parent.name}", found[:16], digest[:16], remedy)
            raise ContractError("The manifest was replaced after this run was started for it.", [problem])


def owner_of(key: str) -> tuple[str, str]:
    """Return source and batch of the manifest at a key; one that lies at no place for manifests is 'unplaced'."""
    return _place("", key)[:2]


def _place(where: str, key: str) -> tuple[str, str, list[Problem]]:
    parts = key.split("/")
    if len(parts) == 3 and _SLUG.match(parts[0]) and _SLUG.match(parts[1]):
        return parts[0], parts[1], []
    remedy = "Use names of letters, digits, dot, underscore and hyphen, and one folder each."
    problem = Problem(where, key, f"<source>/<batch>/{MANIFEST_NAME}", remedy)
    return "unplaced", hashlib.sha256(key.encode()).hexdigest()[:16], [problem]
