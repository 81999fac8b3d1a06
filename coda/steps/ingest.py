"""Ingest: delivered batches, named by their manifests, into a dataset folder."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from coda.config.params import Params
from coda.contracts.ingest import IngestReport
from coda.contracts.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, BatchManifest, FileEntry
from coda.errors import ConfigError, ContractError, Problem, raise_if_any
from coda.plates.batch import Progress, ingest_batch
from coda.plates.disk import writing
from coda.plates.files import BatchFiles, LargerFileError, LocalFiles
from coda.plates.plan import fields_listed
from coda.plates.split_files import SplitFiles, table_paths
from coda.plates.workers import Workers
from coda.settings import Settings
from coda.storage.failures import ObjectNotFoundError, ObjectTooLargeError
from coda.storage.image_places import images_place
from coda.storage.objects import ObjectStore

SMALL_CALL = 128
"""Fields under which worker processes cost more to start (a second or two) than they save."""

FETCH_AT_ONCE_BYTES = 4 * 1024**3
"""Deliveries up to this size are fetched to disk before they are read."""

FETCHERS = 8
"""Objects under way at once."""

INCOMING = ".incoming-"
"""Beginning of the name of the folder that holds a fetched delivery while it is read."""


class ObjectFiles:
    """A delivery in object storage: keys below the folder of its manifest."""

    def __init__(self, store: ObjectStore) -> None:
        """Keep the store, whose prefix is the folder of the manifest."""
        self._store = store

    def read(self, path: str, *, at_most: int) -> bytes:
        """Return the bytes of an object; see `coda.plates.files.BatchFiles`."""
        try:
            return self._store.get(path, at_most=at_most)
        except ObjectNotFoundError as error:
            raise FileNotFoundError(path) from error
        except ObjectTooLargeError as error:
            raise LargerFileError(path, self._store.size(path) or at_most + 1) from error

    def size(self, path: str) -> int | None:
        """Return the size in bytes, or None when there is no such object."""
        return self._store.size(path)

    def fetch(self, entry: FileEntry, target: Path) -> None:
        """Copy an object to a file; one that is not there or is larger than promised leaves no file."""
        try:
            body = self._store.get(entry.path, at_most=entry.size_bytes)
        except (ObjectNotFoundError, ObjectTooLargeError):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)

    def __repr__(self) -> str:
        return f"ObjectFiles({self._store!r})"


def ingest(
    manifest_uris: Sequence[str],
    out: Path,
    *,
    params: Params,
    settings: Settings,
    progress: Progress | None = None,
) -> list[IngestReport]:
    """Turn delivered batches into batch folders below ``out/<source>/<batch>``.

    What is wrong inside a delivery is written to its ``ingest.json`` for validation to judge. The call can be repeated:
    finished batches and plates are kept.

    Args:
        manifest_uris: One manifest a batch: ``s3://bucket/key/manifest.json`` or a path of this machine.
        out: Dataset folder; made when it is not there.
        params: The `ingest` and `quality` sections are used.
        settings: Where object storage is.
        progress: Told how far each batch is.

    Returns:
        One report a manifest, in the order given.

    Raises:
        ConfigError: No manifest is named.
        ContractError: A manifest cannot be read, its images lie where nothing is read, or two describe the same batch;
            all such problems together.
        TransientError: Object storage is away.
        ConfigError: The output cannot be written: a full disk, or no right to write there.
    """
    if not manifest_uris:
        problem = Problem("manifest_uris", "nothing", "at least one manifest", "Name the manifest.json of a batch.")
        raise ConfigError("Ingest was given no batch.", [problem])
    deliveries = _read_manifests(manifest_uris, settings)
    fields = sum(fields_listed(manifest) for *_, manifest in deliveries)
    for left in out.glob(f"{INCOMING}*"):
        shutil.rmtree(left)  # of a call that was killed
    reports = []
    with Workers(params.ingest.workers if fields >= SMALL_CALL else 1) as workers:
        for uri, files, text, manifest in deliveries:
            with _at_hand(files, manifest, out) as near:
                reports.append(
                    ingest_batch(text, near, out, where=uri, params=params, workers=workers, progress=progress)
                )
    return reports


class FetchedFiles(LocalFiles):
    """A delivery fetched to a folder; what was left in object storage is asked for there."""

    def __init__(self, folder: Path, rest: ObjectFiles) -> None:
        """Keep the folder, and where all of it came from."""
        super().__init__(folder)
        self._rest = rest

    def read(self, path: str, *, at_most: int) -> bytes:
        """Return the bytes of a file; see `coda.plates.files.BatchFiles`."""
        try:
            return super().read(path, at_most=at_most)
        except FileNotFoundError:
            return self._rest.read(path, at_most=at_most)

    def size(self, path: str) -> int | None:
        """Return the size in bytes, or None; see `coda.plates.files.BatchFiles`."""
        fetched = super().size(path)
        return fetched if fetched is not None else self._rest.size(path)


@contextmanager
def _at_hand(files: BatchFiles, manifest: BatchManifest, out: Path) -> Iterator[BatchFiles]:
    """Fetch a small delivery once, many files at a time; a large one is streamed file by file.

    Ingest reads each image twice (illumination first, then the images themselves), and one request after the other
    leaves an object store idle.
    """
    entries = [file for plate in manifest.plates for file in plate.files]
    if isinstance(files, SplitFiles):
        tables = [file for file in entries if file.path in files.tables]
        images = [file for file in entries if file.path not in files.tables]
        with _fetched(files.beside, tables, out) as beside, _fetched(files.elsewhere, images, out) as elsewhere:
            yield SplitFiles(beside, elsewhere, files.tables)
        return
    with _fetched(files, entries, out) as near:
        yield near


@contextmanager
def _fetched(files: BatchFiles, entries: Sequence[FileEntry], out: Path) -> Iterator[BatchFiles]:
    if not isinstance(files, ObjectFiles) or sum(file.size_bytes for file in entries) > FETCH_AT_ONCE_BYTES:
        yield files
        return
    with writing(out), ExitStack() as stack:
        out.mkdir(parents=True, exist_ok=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=INCOMING, dir=out)))
        with ThreadPoolExecutor(FETCHERS) as pool:
            list(pool.map(lambda file: files.fetch(file, folder / file.path), entries))
        yield FetchedFiles(folder, files)


def _read_manifests(uris: Sequence[str], settings: Settings) -> list[tuple[str, BatchFiles, bytes, BatchManifest]]:
    """Return address, files, text and content of each manifest, after reading all of them."""
    deliveries: list[tuple[str, BatchFiles, bytes, BatchManifest]] = []
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for uri in uris:
        files, name = files_of(uri, settings)
        try:
            size = files.size(name)
            if size is not None and size > MAX_MANIFEST_BYTES:
                found, expected = f"{size} bytes", f"at most {MAX_MANIFEST_BYTES}"
                problems.append(Problem(uri, found, expected, "Deliver the plates as several batches."))
                continue
            text = files.read(name, at_most=MAX_MANIFEST_BYTES)
            manifest = BatchManifest.parse(text, uri)
        except FileNotFoundError:
            remedy = "Check the address; a producer writes the manifest last, when all files are there."
            problems.append(Problem(uri, "nothing", f"a {MANIFEST_NAME}", remedy))
            continue
        except ContractError as error:
            problems += error.problems
            continue
        batch = manifest.batch_id
        if batch in seen:
            remedy = "Give each batch once."
            problems.append(Problem(uri, f"batch {batch} again (also {seen[batch]})", "another batch", remedy))
        seen[batch] = uri
        try:
            deliveries.append((uri, with_images(files, manifest, settings), text, manifest))
        except ContractError as error:
            problems += [replace(problem, where=f"{uri}: {problem.where}") for problem in error.problems]
    raise_if_any(ContractError, "A manifest cannot be used.", problems)
    return deliveries


def with_images(files: BatchFiles, manifest: BatchManifest, settings: Settings) -> BatchFiles:
    """Return a delivery's files as its manifest lays them out: all beside it, or the images elsewhere.

    Args:
        files: Files beside the manifest.
        manifest: The manifest; its `images_at` is looked at.
        settings: Where object storage is, and which other places are read.

    Raises:
        ContractError: The images lie at a place that is not an allowed one.
        ConfigError: The allowed places cannot be understood.
    """
    if manifest.images_at is None:
        return files
    place = images_place(manifest.images_at, settings)
    elsewhere = LocalFiles(place) if isinstance(place, Path) else ObjectFiles(place)
    return SplitFiles(files, elsewhere, table_paths(manifest))


def files_of(uri: str, settings: Settings) -> tuple[BatchFiles, str]:
    """Return the files of the delivery that a manifest describes, and the manifest's own name among them."""
    if "://" in uri:
        folder, _, name = uri.rpartition("/")
        return ObjectFiles(ObjectStore(folder, settings.s3_endpoint)), name
    path = Path(uri)
    return LocalFiles(path.parent), PurePosixPath(path.name).name
