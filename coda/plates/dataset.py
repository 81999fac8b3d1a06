"""Dataset folders: finding the batches in one, and fields of view into memory."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.contracts.fields import METADATA_COLUMNS
from coda.contracts.ingest import IngestReport
from coda.contracts.manifest import MANIFEST_NAME, BatchManifest
from coda.contracts.quality import QualityReport
from coda.errors import ConfigError, IntegrityError, Problem, raise_if_any
from coda.plates.batch import REPORT_NAME
from coda.plates.fieldset import FieldSet
from coda.plates.index import INGESTED_NAME
from coda.plates.store import read_arrays

QUALITY_NAME = "quality.json"
SHARE = 64


@dataclass(frozen=True)
class BatchFolder:
    """One ingested batch of a dataset folder; tables are read when they are first asked for."""

    path: Path

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
        return pd.read_parquet(self.path / "index.parquet")

    @cached_property
    def ingested(self) -> pd.DataFrame:
        """The index as ingest wrote it: with the fields of refused plates, for those who must see why."""
        kept, quality = self.path / INGESTED_NAME, self.quality
        current = quality is not None and quality.ingest_digest == self.ingest.digest()
        return pd.read_parquet(kept) if kept.is_file() and current else self.index

    @cached_property
    def wells(self) -> pd.DataFrame:
        """The plate maps: one row a well, delivered or not."""
        return pd.read_parquet(self.path / "wells.parquet")

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


def open_batches(folder: Path) -> list[BatchFolder]:
    """Return the batches of a dataset folder, sorted by source and batch; an empty list when there are none.

    A batch whose ingest was interrupted has no report yet and is left out.
    """
    return [BatchFolder(report.parent) for report in sorted(folder.glob(f"*/*/{REPORT_NAME}"))]


def load_fields(batches: Sequence[BatchFolder], channels: Sequence[str], centre: int) -> FieldSet:
    """Read the accepted fields of batches into memory, verifying each field's digest.

    Args:
        batches: Batch folders; fields come in their order, and within a batch in the order of its index.
        channels: Stains to keep, in this order; every field must have them.
        centre: Side of the square that is cut from the middle of each field, in stored pixels; a smaller field is
            padded with zeros on all sides.

    Returns:
        uint8 images, (fields, channels, centre, centre), and their rows: ``image_id`` and `Metadata_*` columns.

    Raises:
        ConfigError: A batch lacks a stain.
        IntegrityError: A store is absent or damaged, or a field's pixels are not the ones that were recorded.
    """
    tables = [batch.accepted for batch in batches]
    _check_channels(batches, tables, channels)
    columns = ["image_id", *METADATA_COLUMNS.values()]
    filled = [table[columns] for table in tables if len(table)]
    empty = [table[columns] for table in tables[:1]]
    table = pd.concat(filled or empty, ignore_index=True) if filled or empty else pd.DataFrame(columns=columns)
    images = np.zeros((len(table), len(channels), centre, centre), dtype=np.uint8)
    shares: list[tuple[Path, pd.DataFrame, NDArray[np.intp]]] = []
    start = 0
    for batch, rows in zip(batches, tables, strict=True):
        for store, part in rows.groupby("store", sort=False):
            places = part.index.to_numpy()
            for step in range(0, len(places), SHARE):
                chosen = places[step : step + SHARE]
                shares.append((batch.path / str(store), rows.iloc[chosen], chosen + start))
        start += len(rows)
    # decoding and hashing release the interpreter lock, so threads are enough
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        faults = list(pool.map(lambda share: _fill(images, channels, *share), shares))
    problems = [problem for found in faults for problem in found]
    raise_if_any(IntegrityError, f"{len(problems)} fields are not the ones that were ingested.", problems[:20])
    return FieldSet(images, table, tuple(channels))


def _check_channels(batches: Sequence[BatchFolder], tables: Sequence[pd.DataFrame], channels: Sequence[str]) -> None:
    problems = [
        Problem(
            f"batch {batch.batch_id}",
            f"the stains {stored}",
            f"all of {', '.join(channels)}",
            "Ingest the batch with these stains (ingest.channels), or train on those that it has.",
        )
        for batch, table in zip(batches, tables, strict=True)
        for stored in table["channels"].unique()
        if not set(channels) <= set(str(stored).split(","))
    ]
    raise_if_any(ConfigError, "A batch lacks stains that are asked for.", problems)


def _fill(
    images: NDArray[np.uint8], channels: Sequence[str], store: Path, rows: pd.DataFrame, places: NDArray[np.intp]
) -> list[Problem]:
    """Read some fields of one store into their places; returns those whose digest is not the recorded one."""
    stored = [str(value).split(",") for value in rows["channels"]]
    shapes = [
        (len(names), int(height), int(width))
        for names, height, width in zip(stored, rows["height"], rows["width"], strict=True)
    ]
    problems = []
    pixels = read_arrays(store, rows["array"].tolist(), shapes)
    for place, names, digest, image_id, field in zip(
        places, stored, rows["sha256"], rows["image_id"], pixels, strict=True
    ):
        if hashlib.sha256(field.data).hexdigest() != digest:
            remedy = "Fetch this batch again from the data registry, and find out who changed the file."
            expected = f"pixels with the SHA-256 {digest}"
            problems.append(Problem(f"{store}, field {image_id}", "other pixels", expected, remedy))
            continue
        for channel, stain in enumerate(channels):
            crop_centre(field[names.index(stain)], images[place, channel])
    return problems


def crop_centre(image: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Copy the middle of an image into the middle of a square target; what it does not cover stays as it is."""
    source, place = [], []
    for have, want in zip(image.shape, target.shape, strict=True):
        size = min(have, want)
        source.append(slice((have - size) // 2, (have - size) // 2 + size))
        place.append(slice((want - size) // 2, (want - size) // 2 + size))
    target[tuple(place)] = image[tuple(source)]
