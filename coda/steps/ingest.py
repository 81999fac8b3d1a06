"""Ingest: delivered batches, named by their manifests, into a dataset folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from coda.config.params import Params
from coda.contracts.ingest import IngestReport
from coda.contracts.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, SMALLER, BatchManifest
from coda.errors import ConfigError, ContractError, Problem, raise_if_any
from coda.plates.batch_files import BatchFiles, LargerFileError, LocalFiles
from coda.plates.batch_ingest import ingest_batch
from coda.plates.earlier_illumination import MAX_BYTES, WRITE, EarlierLight, read_earlier
from coda.plates.name_forms import by_form, composed, only, plain_folder
from coda.plates.plate_plan import fields_listed
from coda.plates.shelf import PlateShelf
from coda.plates.split_files import SplitFiles, table_paths
from coda.plates.workers import Workers
from coda.settings import Settings
from coda.steps.counting import counted
from coda.storage.failures import ObjectNotFoundError, ObjectTooLargeError
from coda.storage.image_places import images_place
from coda.storage.objects import ObjectStore

SMALL_CALL = 128
"""Fields under which worker processes cost more to start (a second or two) than they save."""


class ObjectFiles:
    """A delivery in object storage: keys below the folder of its manifest."""

    def __init__(self, store: ObjectStore) -> None:
        """Keep the store, whose prefix is the folder of the manifest."""
        self._store = store
        self._forms: dict[str, Mapping[str, list[str]]] = {}

    def __getstate__(self) -> dict[str, object]:
        """Leave out the keys that were listed: a worker process lists what it needs."""
        return {**self.__dict__, "_forms": {}}

    def read(self, path: str, *, at_most: int) -> bytes:
        """Return the bytes of an object; see `coda.plates.batch_files.BatchFiles`."""
        try:
            data = self._store.find(path, at_most=at_most)
            return data if data is not None else self._store.get(self._stored(path), at_most=at_most)
        except ObjectNotFoundError as error:
            raise FileNotFoundError(path) from error
        except ObjectTooLargeError as error:
            raise LargerFileError(path, self.size(path) or at_most + 1) from error

    def size(self, path: str) -> int | None:
        """Return the size in bytes, or None when there is no such object."""
        size = self._store.size(path)
        if size is not None:
            return size
        try:
            return self._store.size(self._stored(path))
        except FileNotFoundError:
            return None

    def _stored(self, path: str) -> str:
        """Return the key that a path means which is no key (`coda.plates.name_forms`)."""
        if path.isascii():
            raise FileNotFoundError(path)
        folder = plain_folder(path)
        if folder not in self._forms:
            self._forms[folder] = by_form(info.key for info in self._store.list(f"{folder}/" if folder else ""))
        return only(path, self._forms[folder].get(composed(path), []))

    def __repr__(self) -> str:
        return f"ObjectFiles({self._store!r})"


def ingest(
    manifest_uris: Sequence[str],
    out: Path,
    *,
    params: Params,
    settings: Settings,
    shelf: PlateShelf | None = None,
) -> list[IngestReport]:
    """Turn delivered batches into batch folders below ``out/<source>/<batch>``.

    What is wrong inside a delivery is written to its ``ingest.json`` for validation to judge. The call can be repeated:
    finished batches and plates are kept.

    Args:
        manifest_uris: One manifest a batch: ``s3://bucket/key/manifest.json`` or a path of this machine.
        out: Dataset folder; made when it is not there.
        params: The `ingest` and `quality` sections are used.
        settings: Where object storage is.
        shelf: Where finished plates stay; without it their stores lie in the batch folders.

    Returns:
        One report a manifest, in the order given.

    Raises:
        ConfigError: No manifest is named, or the function of an earlier plate is not as the parameters say.
        ContractError: A manifest cannot be read, its images lie where nothing is read, or two describe the same batch;
            all such problems together.
        TransientError: Object storage is away.
        ConfigError: The output cannot be written: a full disk, or no right to write there.
    """
    deliveries = read_manifests(manifest_uris, settings)
    earlier = earlier_functions(deliveries, params, settings)
    fields = sum(fields_listed(item.manifest) for item in deliveries)
    with workers_for(fields, params) as workers, counted("Reading", unit="fields, each twice") as progress:
        return [
            ingest_batch(
                item.text,
                item.files,
                out,
                where=item.uri,
                params=params,
                workers=workers,
                progress=progress,
                shelf=shelf,
                earlier=earlier.get(item.manifest.instrument.name),
            )
            for item in deliveries
        ]


def workers_for(fields: int, params: Params) -> Workers:
    """Return the processes that read so many fields."""
    return Workers(params.ingest.workers if fields >= SMALL_CALL else 1)


@dataclass(frozen=True)
class Delivery:
    """A delivered batch: address, files, text and content of its manifest."""

    uri: str
    files: BatchFiles
    text: bytes
    manifest: BatchManifest


def earlier_functions(deliveries: Sequence[Delivery], params: Params, settings: Settings) -> dict[str, EarlierLight]:
    """Return the illumination functions of earlier plates for the instruments of deliveries, as parameters name them.

    Raises:
        ConfigError: A file is absent, or not the one that is named.
        TransientError: Object storage is away.
    """
    found: dict[str, EarlierLight] = {}
    for name in dict.fromkeys(item.manifest.instrument.name for item in deliveries):
        named = params.ingest.earlier_illumination.get(name)
        if named is None:
            continue
        files, path = files_of(named.file, settings)
        try:
            data = files.read(path, at_most=MAX_BYTES)
        except (FileNotFoundError, LargerFileError) as error:
            problem = Problem(named.file, "no such file", "the function for " + name, WRITE)
            raise ConfigError("The illumination function of an earlier plate cannot be read.", [problem]) from error
        found[name] = read_earlier(data, named.sha256, named.file)
    return found


def read_manifests(uris: Sequence[str], settings: Settings) -> list[Delivery]:
    """Return the batches that manifests describe, after reading all of them; see `ingest` for the errors."""
    if not uris:
        problem = Problem("manifest_uris", "nothing", "at least one manifest", "Name the manifest.json of a batch.")
        raise ConfigError("Ingest was given no batch.", [problem])
    deliveries: list[Delivery] = []
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for uri in uris:
        files, name = files_of(uri, settings)
        try:
            size = files.size(name)
            if size is not None and size > MAX_MANIFEST_BYTES:
                found, expected = f"{size} bytes", f"at most {MAX_MANIFEST_BYTES}"
                problems.append(Problem(uri, found, expected, SMALLER))
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
            deliveries.append(Delivery(uri, with_images(files, manifest, settings), text, manifest))
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
