"""Ingest of one batch: every plate in turn, then the tables of the batch, and its report last of all."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coda.config.params import Params
from coda.contracts.ingest import REPORT_NAME, IngestReport, PlateOutcome
from coda.contracts.manifest import MANIFEST_NAME, BatchManifest, PlateEntry
from coda.contracts.placement import STORES_NAME, StoreReference, StoreReferences
from coda.durable import write_durably
from coda.errors import ContractError
from coda.plates.batch_files import BatchFiles
from coda.plates.copies import copied_images
from coda.plates.disk import writing
from coda.plates.earlier_illumination import EarlierLight
from coda.plates.given_illumination import functions_given
from coda.plates.index import index_table, write_parquet
from coda.plates.outputs import PlateFolders, forget_unseen_examples, store_name
from coda.plates.plate_ingest import PlateRecord, ingest_plate
from coda.plates.plate_plan import (
    PlatePlan,
    batch_problems,
    content_key,
    plan_plate,
    plate_fields_listed,
    stored_names,
)
from coda.plates.shelf import PlateShelf
from coda.plates.workers import Workers

WORK_NAME = ".work"

Progress = Callable[[int, int, str], None]
"""Called with what is done, the total (both in fields, counted once for each of two passes), and a few words."""


def ingest_batch(
    manifest_text: bytes,
    files: BatchFiles,
    out: Path,
    *,
    where: str,
    params: Params,
    workers: Workers,
    progress: Progress | None = None,
    shelf: PlateShelf | None = None,
    earlier: EarlierLight | None = None,
) -> IngestReport:
    """Turn one delivered batch into a batch folder below ``out/<source>/<batch>``.

    Whatever is wrong inside the delivery is in the report, for validation to judge; a finished batch, and finished
    plates of an interrupted one, are not repeated.

    Args:
        manifest_text: The manifest as delivered; its bytes are kept beside the results.
        files: The delivery that the manifest describes.
        out: Dataset folder.
        where: Name of the manifest, for messages.
        params: Ingest and quorum parameters.
        workers: Processes that do the work.
        progress: Called with the progress so far.
        shelf: Where finished plates stay; the folder then names their stores in ``stores.json``. Without it they lie
            in the folder.
        earlier: Function of an earlier plate, where parameters name one for the batch's instrument.

    Raises:
        ContractError: The manifest is not one.
        TransientError: The storage is away; finished plates remain, nothing half-written does.
        CodaError: The disk cannot be written, or a worker process died.
    """
    manifest = BatchManifest.parse(manifest_text, where)
    folder = out / manifest.source / manifest.batch
    with writing(folder):
        done = _finished(folder, manifest, params, shelf)
        if done is not None:
            return done
        folders = PlateFolders(folder, folder / WORK_NAME)
        folders.work.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_NAME).unlink(missing_ok=True)
        _forget_strangers(folder, {plate.plate for plate in manifest.plates})
        records = ingest_plates(
            manifest, manifest.plates, files, folders,
            params=params, workers=workers, progress=progress, shelf=shelf, earlier=earlier,
        )  # fmt: skip
        return _assemble(manifest, manifest_text, folders, records, params, copied_images(files, manifest))


def ingest_plates(
    manifest: BatchManifest,
    plates: Sequence[PlateEntry],
    files: BatchFiles,
    folders: PlateFolders,
    *,
    params: Params,
    workers: Workers,
    progress: Progress | None,
    shelf: PlateShelf | None,
    earlier: EarlierLight | None,
) -> list[PlateRecord]:
    """Turn some plates of a batch into their stores and tables, those that were finished before left as they are.

    Args:
        manifest: The batch.
        plates: The plates, in the order of the manifest.
        files: The delivery.
        folders: Where the results go.
        params: Ingest and quorum parameters.
        workers: Processes that do the work.
        progress: Called with the progress so far.
        shelf: Where finished plates stay.
        earlier: As for `ingest_batch`.

    Returns:
        Their records, in the order given.

    Raises:
        TransientError: The storage is away; finished plates remain, nothing half-written does.
    """
    problems = batch_problems(manifest, params)
    total = 2 * sum(plate_fields_listed(manifest, entry) for entry in plates)
    done = 0
    records: list[PlateRecord] = []
    for entry in plates:

        def advance(fields: int, plate: str = entry.plate) -> None:
            nonlocal done
            done = min(total, done + fields)
            if progress is not None:
                progress(done, total, f"{manifest.batch_id}: plate {plate}")

        key = content_key(manifest, entry, params)
        record = _kept(folders, entry.plate, key, shelf)
        if record is None and shelf is not None:
            record = shelf.find(entry.plate, key, folders)
        if record is not None:
            advance(2 * plate_fields_listed(manifest, entry))
        else:
            if problems:
                expected = plate_fields_listed(manifest, entry)
                plan = PlatePlan(entry, key, expected=expected, problems=list(problems))
            else:
                plan = plan_plate(files, manifest, entry, params)
            record = ingest_plate(
                files, manifest, plan, folders, params=params, workers=workers, report=advance, earlier=earlier
            )
            record = record if shelf is None else shelf.keep(record, folders)
        records.append(record)
    return records


def _kept(folders: PlateFolders, plate: str, key: str, shelf: PlateShelf | None) -> PlateRecord | None:
    """Return the record of a plate that an interrupted ingest has finished, or None when it must be done (again).

    A plate that lacked files, or whose files were not the manifest's, is done again: the upload may have been repeated.
    """
    try:
        record = PlateRecord.read(folders.part(plate, ".json"))
    except (FileNotFoundError, ContractError):
        return None
    current = record.outcome.content_key == key and record.delivered
    return record if current and _intact(folders.batch, record.outcome, record.reference, shelf) else None


def _intact(folder: Path, outcome: PlateOutcome, reference: StoreReference | None, shelf: PlateShelf | None) -> bool:
    if outcome.outcome == "refused":
        return True
    if shelf is not None:
        return reference is not None and shelf.holds(reference)
    store = folder / outcome.store
    return store.is_file() and store.stat().st_size == outcome.store_bytes


def _finished(folder: Path, manifest: BatchManifest, params: Params, shelf: PlateShelf | None) -> IngestReport | None:
    """Return the report of a batch that is finished with the same manifest and parameters, and lacked nothing."""
    try:
        report = IngestReport.read(folder / REPORT_NAME)
    except (FileNotFoundError, ContractError):
        return None
    keys = [content_key(manifest, entry, params) for entry in manifest.plates]
    same = report.manifest_digest == manifest.digest() and [plate.content_key for plate in report.plates] == keys
    if not same or not report.delivered:
        return None
    named = StoreReferences.beside(folder)
    whole = all(_intact(folder, plate, named.find(plate.store), shelf) for plate in report.plates)
    return report if whole else None


def _forget_strangers(folder: Path, plates: set[str]) -> None:
    """Remove stores and examples of plates that an earlier manifest of this batch had, and drafts of a killed run."""
    keep = {store_name(plate) for plate in plates}
    for store in folder.glob("*.ome.zarr.zip*"):
        if store.name not in keep:
            store.unlink()
    for example in (folder / "examples").glob("*.npz*"):
        if example.name.removesuffix(".npz") not in plates:
            example.unlink()


def _assemble(
    manifest: BatchManifest,
    manifest_text: bytes,
    folders: PlateFolders,
    records: list[PlateRecord],
    params: Params,
    copies: int,
) -> IngestReport:
    names = [record.outcome.plate for record in records]
    tables = [pd.read_parquet(folders.part(name, ".index.parquet")) for name in names]
    filled = [table for table in tables if len(table)]
    sides = {
        (int(height), int(width))
        for table in filled
        for height, width in zip(table["height"], table["width"], strict=True)
    }
    write_parquet(pd.concat(filled, ignore_index=True) if filled else index_table([]), folders.batch / "index.parquet")
    wells = [pd.read_parquet(folders.part(name, ".wells.parquet")) for name in names]
    filled = [table for table in wells if len(table)]
    write_parquet(pd.concat(filled, ignore_index=True) if filled else wells[0], folders.batch / "wells.parquet")
    _join_illumination(folders, names, params.ingest.channels)
    forget_unseen_examples(folders.batch)
    _replace(folders.batch / MANIFEST_NAME, manifest_text)
    references = tuple(record.reference for record in records if record.reference is not None)
    if references:
        StoreReferences(stores=references).write(folders.batch / STORES_NAME)
    else:
        (folders.batch / STORES_NAME).unlink(missing_ok=True)
    outcomes = tuple(record.outcome for record in records)
    problems = tuple(dict.fromkeys(problem for record in records for problem in record.problems))
    report = IngestReport(
        source=manifest.source,
        batch=manifest.batch,
        manifest_digest=manifest.digest(),
        channels=params.ingest.channels,
        renamed={old: new for old, new in params.ingest.renamed.items() if old in manifest.channels},
        fields_expected=sum(outcome.fields_expected for outcome in outcomes),
        fields_accepted=sum(outcome.fields_accepted for outcome in outcomes),
        delivered=all(record.delivered for record in records),
        plates=outcomes,
        quarantined=tuple(item for record in records for item in record.quarantined),
        problems=problems,
        notes=(
            *_notes(manifest, outcomes, sides, params, copies),
            *(remark for one in records for remark in one.remarks),
        ),
    )
    report.write(folders.batch / REPORT_NAME)
    shutil.rmtree(folders.work)
    return report


def _join_illumination(folders: PlateFolders, plates: list[str], channels: tuple[str, ...]) -> None:
    arrays: dict[str, Any] = {"channels": np.array(channels, dtype=np.str_)}
    for plate in plates:
        path = folders.part(plate, ".npz")
        if path.is_file():
            with np.load(path, allow_pickle=False) as stored:
                arrays |= {f"{plate}/{name}": stored[name] for name in stored.files}
    draft = folders.batch / "illumination.npz.part"
    with draft.open("wb") as file:
        np.savez_compressed(file, **arrays)
    draft.replace(folders.batch / "illumination.npz")


def _partly_given(plate: PlateEntry, params: Params) -> bool:
    return params.ingest.illumination.prefer_given and not functions_given(
        plate.renamed(params.ingest.renamed), params.ingest.channels
    )


def _replace(path: Path, data: bytes) -> None:
    write_durably(path, data)


def _notes(
    manifest: BatchManifest,
    outcomes: tuple[PlateOutcome, ...],
    sides: set[tuple[int, int]],
    params: Params,
    copies: int,
) -> list[str]:
    notes = []
    others = [name for name in stored_names(manifest, params) if name not in params.ingest.channels]
    if others:
        notes.append(f"Delivered and not stored, since ingest.channels does not list them: {', '.join(others)}.")
    if params.ingest.renamed:
        pairs = ", ".join(f"{old} as {new}" for old, new in params.ingest.renamed.items())
        notes.append(f"Stored under other names (ingest.renamed): {pairs}.")
    few = [outcome.plate for outcome in outcomes if outcome.illumination == "too_few_fields"]
    if few:
        least = params.ingest.illumination.min_fields
        notes.append(
            f"Illumination was left as recorded on {', '.join(few)}: correcting takes {least} fields a plate or more."
        )
    partly = [plate.plate for plate in manifest.plates if plate.illumination and _partly_given(plate, params)]
    if partly:
        notes.append(
            f"Illumination functions were delivered for some stains only on {', '.join(partly)}: they were not used, "
            "and all were estimated."
        )
    small = sorted(size for size in sides if min(size) < params.crops.centre)
    if small:
        height, width = small[0]
        notes.append(
            f"Fields of {height} x {width} stored pixels are smaller than crops.centre ({params.crops.centre}): "
            "training and prediction would fill the rest with black. Lower crops.centre, or raise "
            "ingest.scaling_factor if the raw pixels are large."
        )
    if copies:
        notes.append(f"{copies} image files have exactly the content of another file of this batch.")
    return notes
