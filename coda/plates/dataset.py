"""Dataset folders: finding the batches in one, and fields of view into memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from coda.contracts.fields import METADATA_COLUMNS
from coda.contracts.ingest import REPORT_NAME, IngestReport
from coda.contracts.manifest import MANIFEST_NAME, BatchManifest
from coda.contracts.placement import StoreReferences
from coda.contracts.quality import QualityReport
from coda.errors import ConfigError, Problem, raise_if_any
from coda.plates.fieldset import FieldSet
from coda.plates.index import INGESTED_NAME
from coda.plates.lacking import cure, unread
from coda.plates.store_source import RemoteStore, Stores
from coda.plates.stored import Place, StoredFields, read_fields
from coda.plates.stored_tables import read_stored, require, require_places

QUALITY_NAME = "quality.json"
INDEX_NAME = "index.parquet"

PLACE_COLUMNS = ["store", "array", "channels", "height", "width", "sha256", "crc32c", "image_id"]
"""Columns of the field index that say where the pixels lie and what they must be."""

NAME_COLUMNS = [f"Metadata_{name}" for name in ("Source", "Batch", "Plate", "Well", "Site")]
"""Columns that say which field it is."""


@dataclass(frozen=True)
class BatchFolder:
    """One ingested batch of a dataset folder; tables are read when they are first asked for.

    Attributes:
        path: The folder.
        stores: Where plate stores lie that are not in the folder.
    """

    path: Path
    stores: Stores | None = None

    @cached_property
    def manifest(self) -> BatchManifest:
        """The manifest as delivered."""
        return BatchManifest.read(self.path / MANIFEST_NAME)

    @cached_property
    def ingest(self) -> IngestReport:
        """What was expected, read and set aside."""
        return IngestReport.read(self.path / REPORT_NAME)

    @cached_property
    def quality(self) -> QualityReport | None:
        """The verdict of validation, or None before it has run."""
        path = self.path / QUALITY_NAME
        return QualityReport.read(path) if path.is_file() else None

    @cached_property
    def index(self) -> pd.DataFrame:
        """The field index: one row a stored field, with `Metadata_*` and `QC_*` columns."""
        return read_stored(self.path / INDEX_NAME, ["Metadata_Plate"])

    @cached_property
    def ingested(self) -> pd.DataFrame:
        """The index as ingest wrote it: with the fields of refused plates, for those who must see why."""
        kept, quality = self.path / INGESTED_NAME, self.quality
        current = quality is not None and quality.ingest_digest == self.ingest.digest()
        return read_stored(kept, ["Metadata_Plate"]) if kept.is_file() and current else self.index

    @cached_property
    def wells(self) -> pd.DataFrame:
        """The plate maps: one row a well, delivered or not."""
        return read_stored(self.path / "wells.parquet")

    @cached_property
    def references(self) -> StoreReferences:
        """The plate stores that lie in the data store; none where all lie in the folder."""
        return StoreReferences.beside(self.path)

    def store(self, name: str) -> Path | RemoteStore:
        """Return where a plate store lies: in this folder, or in the data store.

        Raises:
            ConfigError: It lies in the data store, and the caller has none to read from.
        """
        path = self.path / name
        reference = None if path.is_file() else self.references.find(name)
        if reference is None:
            return path
        if self.stores is None:
            name = self.batch_id.replace("/", " ")
            remedy = f"Fetch it with its pixels (coda data fetch {name} --out FOLDER), and name that folder."
            problem = Problem(str(path), "a reference to the data store", "the plate store itself", remedy)
            raise ConfigError("The pixels of this batch lie in the data store.", [problem])
        return self.stores.at(reference)

    @property
    def batch_id(self) -> str:
        """Name of the batch: ``source/batch``."""
        return self.manifest.batch_id

    @property
    def accepted(self) -> pd.DataFrame:
        """The rows of the index that may be used: without those of plates (or a batch) that validation refused."""
        quality = self.quality
        if quality is None:
            return self.index
        if quality.refused:
            return self.index.iloc[:0]
        return self.index[~self.index["Metadata_Plate"].isin(quality.plates_refused)].reset_index(drop=True)


def open_batches(folder: Path, stores: Stores | None = None) -> list[BatchFolder]:
    """Return the batches of a dataset folder, sorted by source and batch; an empty list when there are none.

    A batch whose ingest was interrupted has no report yet and is left out.

    Args:
        folder: The dataset folder.
        stores: Where plate stores lie that are not in the folder; needed by whoever reads pixels.
    """
    return [BatchFolder(report.parent, stores) for report in sorted(folder.glob(f"*/*/{REPORT_NAME}"))]


def ingested_batches(folder: Path, stores: Stores | None = None) -> list[BatchFolder]:
    """Return the batches of a dataset folder that must hold one; see `open_batches`.

    Raises:
        ConfigError: There is no such folder, or no ingested batch in it.
    """
    batches = open_batches(folder, stores)
    if not batches:
        found = "a folder without an ingested batch" if folder.is_dir() else "no such folder"
        remedy = f"Name the folder that ingest wrote: coda step ingest --manifest FILE --out {folder}."
        problem = Problem(str(folder), found, f"<source>/<batch>/{REPORT_NAME} in a dataset folder", remedy)
        raise ConfigError("There is no ingested batch.", [problem])
    return batches


def load_fields(batches: Sequence[BatchFolder], channels: Sequence[str], centre: int) -> FieldSet:
    """Read the accepted fields of batches into memory, verifying each field's checksum.

    Args:
        batches: Batch folders; fields come in their order, and within a batch in the order of its index.
        channels: Channels to keep, by name and in this order; every field must have them, and may have others.
        centre: Side of the square that is cut from the middle of each field, in stored pixels; a smaller field is
            padded with zeros on all sides.

    Returns:
        uint8 images, (fields, channels, centre, centre), and their rows: ``image_id`` and `Metadata_*` columns.

    Raises:
        ConfigError: A batch lacks a stain.
        IntegrityError: A store is absent or damaged, or a field's pixels are not the ones that were recorded.
    """
    return read_fields(open_fields(batches, channels, centre))


def require_covered(stored: StoredFields) -> None:
    """Refuse to train on fields that are smaller than the square cut from them: the rest would be black.

    Raises:
        ConfigError: It names every batch with such fields, and the square that fits.
    """
    names = (stored.table["Metadata_Source"] + "/" + stored.table["Metadata_Batch"]).to_numpy(str)
    sides = np.array([min(place.shape[1:]) for place in stored.places], dtype=np.int64)
    small = sides < stored.centre
    if not small.any():
        return
    fits = int(sides.min())
    remedy = (
        f"Set crops.centre={fits} (and crops.global_size to no more), leave these batches out, or ingest them with a "
        "larger ingest.scaling_factor."
    )
    problems = [
        Problem(
            f"batch {name}",
            f"{int((names[small] == name).sum())} field(s), down to {int(sides[names == name].min())} stored pixels",
            f"at least crops.centre ({stored.centre}) on each side",
            remedy,
        )
        for name in np.unique(names[small])
    ]
    raise ConfigError("Fields are smaller than the square that training cuts from them.", problems)


def open_fields(batches: Sequence[BatchFolder], channels: Sequence[str], centre: int) -> StoredFields:
    """Return where the accepted fields of batches are stored, without reading a pixel; see `load_fields`.

    Raises:
        ConfigError: A batch lacks a stain.
    """
    tables = [batch.accepted for batch in batches]
    columns = ["image_id", *METADATA_COLUMNS.values()]
    for batch, index in zip(batches, tables, strict=True):
        require(index, batch.path / INDEX_NAME, columns)
        require_places(index, batch.path / INDEX_NAME, [*PLACE_COLUMNS, *NAME_COLUMNS])
    _check_channels(batches, tables, channels)
    filled = [table[columns] for table in tables if len(table)]
    empty = [table[columns] for table in tables[:1]]
    table = pd.concat(filled or empty, ignore_index=True) if filled or empty else pd.DataFrame(columns=columns)
    places = [place for batch, rows in zip(batches, tables, strict=True) for place in _places(batch, rows)]
    return StoredFields(tuple(places), table, tuple(channels), centre)


def _places(batch: BatchFolder, rows: pd.DataFrame) -> Iterator[Place]:
    stores = {name: batch.store(str(name)) for name in rows["store"].unique()}
    for store, array, stains, height, width, sha256, crc32c, image_id in rows[PLACE_COLUMNS].itertuples(index=False):
        names = tuple(str(stains).split(","))
        shape = (len(names), int(height), int(width))
        yield Place(stores[store], str(array), shape, names, str(sha256), int(crc32c), str(image_id))


def _check_channels(batches: Sequence[BatchFolder], tables: Sequence[pd.DataFrame], channels: Sequence[str]) -> None:
    problems = [
        _lacking(batch, str(stored).split(","), channels)
        for batch, table in zip(batches, tables, strict=True)
        for stored in table["channels"].unique()
        if not set(channels) <= set(str(stored).split(","))
    ]
    raise_if_any(ConfigError, "A batch lacks channels that the model reads.", problems)


def _lacking(batch: BatchFolder, stored: Sequence[str], channels: Sequence[str]) -> Problem:
    absent = [name for name in channels if name not in stored]
    renamed = batch.ingest.renamed
    unstored = [name for name in batch.manifest.renamed(renamed).channels if name not in stored]
    return Problem(
        f"batch {batch.batch_id}",
        f"the channels {', '.join(stored)}",
        f"all that the model reads: {', '.join(channels)} (missing: {', '.join(absent)})",
        cure(stored, channels, unstored=unstored, already=renamed),
    )


def channels_unread(batches: Sequence[BatchFolder], channels: Sequence[str]) -> list[str]:
    """Return sentences about channels that batches have and that are not among those a model reads."""
    stored = {
        batch.batch_id: list(
            dict.fromkeys(name for names in batch.accepted["channels"].unique() for name in names.split(","))
        )
        for batch in batches
    }
    return unread(stored, channels)
