"""Finished plates in object storage: stores in the data store, records and tables in the platform bucket."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from coda.contracts.placement import StoreReference
from coda.durable import write_durably
from coda.errors import ContractError
from coda.plates.disk import writing
from coda.plates.outputs import PlateFolders
from coda.plates.plate_ingest import PlateRecord
from coda.settings import Settings
from coda.storage.bulk import content_type_of
from coda.storage.objects import store_for
from coda.storage.plate_stores import DataStore

FOLDER = "plates"
"""Prefix of the platform bucket; what is below may be forgotten at any time: a plate is then ingested again."""

RECORD = "record.json"


class StoredShelf:
    """Keeps finished plates by content key; see `coda.plates.shelf.PlateShelf`.

    A plate that lacked files, or whose files were not the manifest's, is kept for this run alone: the next one looks
    whether they came.
    """

    def __init__(self, settings: Settings, run_id: str) -> None:
        """Name the places; nothing is asked yet."""
        self._platform = store_for(settings.platform, settings)
        self._data = DataStore(settings)
        self._run_id = run_id

    def find(self, plate: str, content_key: str, folders: PlateFolders) -> PlateRecord | None:
        """Bring back a plate that was finished before; see `coda.plates.shelf.PlateShelf.find`."""
        for folder in (self._folder(content_key, delivered=True), self._folder(content_key, delivered=False)):
            text = self._platform.find(f"{folder}/{RECORD}")
            record = _read(text, f"{folder}/{RECORD}") if text is not None else None
            if record is None or not _whole(record, plate, content_key):
                continue
            if record.reference is not None and not self._data.holds(record.reference):
                continue
            if self._fetch(folder, record, folders):
                record.write(folders.part(plate, ".json"))
                return record
        return None

    def keep(self, record: PlateRecord, folders: PlateFolders) -> PlateRecord:
        """Keep a plate; see `coda.plates.shelf.PlateShelf.keep`."""
        plate = record.outcome.plate
        folder = self._folder(record.outcome.content_key, delivered=record.delivered)
        store = folders.batch / record.outcome.store if record.outcome.store else None
        reference = self._data.keep(store) if store is not None else None
        present = {name: path for name, path in _parts(plate, folders) if path.is_file()}
        digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in present.items()}
        kept = record.model_copy(update={"reference": reference, "parts": digests})
        for name, path in present.items():
            self._platform.upload(path, f"{folder}/{name}", content_type_of(name))
        # the record comes last: what it names is there
        self._platform.put(f"{folder}/{RECORD}", kept.to_json().encode(), "application/json")
        kept.write(folders.part(plate, ".json"))
        if store is not None:
            store.unlink()
        return kept

    def holds(self, reference: StoreReference) -> bool:
        """Return whether a plate store is where a reference says; see `coda.plates.shelf.PlateShelf.holds`."""
        return self._data.holds(reference)

    def _folder(self, content_key: str, *, delivered: bool) -> str:
        return f"{FOLDER}/{content_key}" if delivered else f"{FOLDER}/{content_key}-{self._run_id}"

    def _fetch(self, folder: str, record: PlateRecord, folders: PlateFolders) -> bool:
        """Bring the files that a record names; return whether all were there with its digests."""
        found: dict[Path, bytes] = {}
        for name, path in _parts(record.outcome.plate, folders):
            if name in record.parts:
                data = self._platform.find(f"{folder}/{name}")
                if data is None or hashlib.sha256(data).hexdigest() != record.parts[name]:
                    return False
                found[path] = data
        with writing(folders.batch):
            for path, data in found.items():
                write_durably(path, data)
        return True


def _parts(plate: str, folders: PlateFolders) -> Iterator[tuple[str, Path]]:
    """Yield the name under which each file of a plate is kept, and its place in the folders."""
    yield "index.parquet", folders.part(plate, ".index.parquet")
    yield "wells.parquet", folders.part(plate, ".wells.parquet")
    yield "illumination.npz", folders.part(plate, ".npz")
    yield "examples.npz", folders.batch / "examples" / f"{plate}.npz"


def _read(text: bytes, where: str) -> PlateRecord | None:
    """Read a record; one of another version, or damaged, is none: the plate is ingested again."""
    try:
        return PlateRecord.parse(text, where)
    except ContractError:
        return None


def _whole(record: PlateRecord, plate: str, content_key: str) -> bool:
    """Return whether a record is of this plate, and names all that a batch is put together from."""
    outcome = record.outcome
    named = {"index.parquet", "wells.parquet"} <= set(record.parts)
    stored = outcome.outcome == "refused" or record.reference is not None
    return (outcome.plate, outcome.content_key) == (plate, content_key) and named and stored
