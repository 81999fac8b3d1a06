"""Turning found plates into a delivery, as a producer would write it: images, tables, and the manifest last of all."""

import csv
import hashlib
import io
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pandas as pd

from coda.contracts.manifest import MANIFEST_NAME, STAINS, BatchManifest, FileEntry
from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.adopt import listed, phenix, rxrx1
from coda.plates.adopt.found import FoundField, FoundPlate
from coda.plates.layout import FORMATS, fits, format_of, well_name
from coda.plates.plate_map import COLUMNS, UNKNOWN_TREATMENT
from coda.plates.tables import UnreadableTableError, read_table

Layout = Literal["phenix", "load_data", "rxrx1"]

LAYOUTS = {"phenix": phenix.find_plates, "load_data": listed.find_plates, "rxrx1": rxrx1.find_plates}


_PIXEL_REMEDY = (
    "Give --pixel-size: camera pixel times binning, divided by the magnification (6.5 um binned by 2 at 20x: 0.65)."
)


@dataclass(frozen=True)
class Identity:
    """What the folder itself does not say, or what shall replace what it says.

    Attributes:
        source: Laboratory.
        batch: Batch.
        instrument: Name of the microscope.
        modality: Widefield or confocal; from the instrument's files when None.
        pixel_size_um: Edge of a raw pixel; from the instrument's files when None.
        bit_depth: Bits of the grey values; from the instrument's files when None, else 16.
        plate_wells: Wells of the plate format; from the instrument's files when None, else the smallest that fits.
        plate_map: CSV with the wells of all plates; without one the treatments are unknown.
        channels: Channel name -> stain, added to what the layout knows.
        created_at: When the batch was delivered; now when None.
    """

    source: str
    batch: str
    instrument: str
    modality: Literal["widefield", "confocal"] | None = None
    pixel_size_um: float | None = None
    bit_depth: int | None = None
    plate_wells: int | None = None
    plate_map: Path | None = None
    channels: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime | None = None


def adopt(layout: Layout, folder: Path, out: Path, identity: Identity) -> tuple[Path, list[str]]:
    """Write ``<out>/<source>/<batch>/`` from a folder of a real instrument; images are linked or copied, not changed.

    Args:
        layout: How the folder is laid out.
        folder: Folder of one plate (phenix) or of one batch (load_data, rxrx1).
        out: Where deliveries go.
        identity: Names, and what the folder does not say.

    Returns:
        The manifest's path; and remarks in plain words (channels and images that were left out).

    Raises:
        ContractError: The folder or the plate map has problems, or something must be given that the folder does not
            say; all of them together.
    """
    plates = LAYOUTS[layout](folder, identity.channels)
    target = out / identity.source / identity.batch
    _check(plates, identity, folder)
    maps = _plate_maps(plates, identity)
    stains = tuple(stain for stain in STAINS if any(stain in item.files for p in plates for item in p.fields))
    entries = [_write_plate(target, plate, maps[plate.plate], stains) for plate in plates]
    first = plates[0]
    wells = identity.plate_wells or first.wells or _smallest(plates)
    manifest = BatchManifest.model_validate(
        {
            "source": identity.source,
            "batch": identity.batch,
            "created_at": identity.created_at or datetime.now(UTC),
            "instrument": {
                "name": identity.instrument,
                "modality": identity.modality or first.modality,
                "objective": first.objective,
                "pixel_size_um": identity.pixel_size_um or first.pixel_size_um,
                "bit_depth": identity.bit_depth or first.bit_depth or 16,
            },
            "channels": stains,
            "plate_wells": wells,
            "plates": tuple(entries),
        }
    )
    remarks = _remarks(plates, stains, identity)
    if identity.plate_wells is None and first.wells is None:
        remarks.append(
            f"Plate format: {wells} wells, the smallest that holds the imaged ones; if wrong, --plate-wells."
        )
    return manifest.write(target / MANIFEST_NAME), remarks


def _smallest(plates: Sequence[FoundPlate]) -> int:
    return format_of([item.place for plate in plates for item in plate.fields])


def _check(plates: Sequence[FoundPlate], identity: Identity, folder: Path) -> None:
    problems = [
        Problem(f"{folder}, plate {plate.plate}", "no field with a known stain", "images of Cell Painting stains",
                f"Say which channel is which stain (--channel NAME=STAIN); found {sorted(plate.left_out)}.")
        for plate in plates
        if not plate.fields
    ]  # fmt: skip
    first = plates[0]
    if identity.pixel_size_um is None and first.pixel_size_um is None:
        problems.append(Problem(str(folder), "no pixel size", "micrometres a pixel", _PIXEL_REMEDY))
    if identity.modality is None and first.modality is None:
        problems.append(Problem(str(folder), "no modality", "widefield or confocal", "Give --modality."))
    problems += _format_problems(plates, identity.plate_wells)
    unknown = sorted(set(identity.channels.values()) - set(STAINS))
    if unknown:
        problems.append(Problem("--channel", ", ".join(unknown), f"stains among {', '.join(STAINS)}", "Correct it."))
    raise_if_any(ContractError, f"{folder} cannot be adopted.", problems)


def _format_problems(plates: Sequence[FoundPlate], wells: int | None) -> list[Problem]:
    if wells is None:
        return []
    if wells not in FORMATS:
        formats = ", ".join(map(str, FORMATS))
        return [Problem("--plate-wells", str(wells), f"one of {formats}", "Give the format of the plates.")]
    outside = [item.place for plate in plates for item in plate.fields if not fits(item.place, wells)]
    if not outside:
        return []
    found = f"{wells}, but images of well {well_name(*outside[0])}"
    return [Problem("--plate-wells", found, "a format that has all imaged wells", "Give the format of the plates.")]


def _plate_maps(plates: Sequence[FoundPlate], identity: Identity) -> dict[str, str]:
    """Return the CSV text of each plate's map."""
    if identity.plate_map is None:
        return {plate.plate: _unknown_map(plate) for plate in plates}
    where = str(identity.plate_map)
    try:
        table = read_table(identity.plate_map.read_bytes())
    except (UnreadableTableError, FileNotFoundError) as error:
        problem = Problem(where, str(error), "a plate map", "Give the plate map (docs/data_contracts.md).")
        raise ContractError(f"{where} cannot be used.", [problem]) from error
    absent = [name for name in COLUMNS if name not in table.columns]
    problems = [Problem(where, f"no column {name}", f"the column {name}", "Add it.") for name in absent]
    raise_if_any(ContractError, f"{where} cannot be used.", problems)
    return {plate.plate: _map_of(table, plate, where) for plate in plates}


def _map_of(table: pd.DataFrame, plate: FoundPlate, where: str) -> str:
    rows = table.loc[table["Metadata_Plate"] == plate.plate, list(COLUMNS)]
    if rows.empty:
        found = f"the plates {', '.join(sorted(set(table['Metadata_Plate']))[:5])}"
        problem = Problem(where, found, f"rows of plate {plate.plate}", "Add the wells of this plate.")
        raise ContractError(f"{where} cannot be used.", [problem])
    return _csv(list(COLUMNS), rows.to_numpy().tolist())


def _unknown_map(plate: FoundPlate) -> str:
    """Return a map in which each well is its own unknown treatment, so that no two wells are taken for replicates."""
    rows = []
    for place in sorted({item.place for item in plate.fields}):
        well = well_name(*place)
        name = f"{UNKNOWN_TREATMENT}{plate.plate}:{well}"
        rows.append([plate.plate, well, name, name, "trt", ""])
    return _csv(list(COLUMNS), rows)


def _write_plate(target: Path, plate: FoundPlate, plate_map: str, stains: Sequence[str]) -> dict[str, object]:
    files: list[FileEntry] = []
    rows: list[list[str]] = []
    for item in plate.fields:
        row = [plate.plate, well_name(*item.place), str(item.site)]
        for stain in stains:
            path = _bring(target, plate.plate, item, stain)
            if path is None:
                row += ["", ""]
                continue
            files.append(_entry(target, path))
            row += [path.rpartition("/")[2], path.rpartition("/")[0] + "/"]
        rows.append(row)
    header = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    header += [f"{kind}_Orig{stain}" for stain in stains for kind in ("FileName", "PathName")]
    tables = {"load_data": _csv(header, rows), "plate_map": plate_map}
    paths = {name: f"{name}/{plate.plate}.csv" for name in tables}
    for name, text in tables.items():
        place = target / paths[name]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        files.append(_entry(target, paths[name]))
    sites = pd.Series([item.place for item in plate.fields]).value_counts()
    return {"plate": plate.plate, **paths, "sites_per_well": int(sites.max()), "files": tuple(files)}


def _bring(target: Path, plate: str, item: FoundField, stain: str) -> str | None:
    """Link or copy one image into the delivery and return its path there; None when the field lacks the stain."""
    source = item.files.get(stain)
    if source is None or not source.is_file():
        return None
    path = f"images/{plate}/{well_name(*item.place)}_s{item.site}_{stain}{source.suffix.lower()}"
    place = target / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        os.link(source, place)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, place)
    return path


def _entry(target: Path, path: str) -> FileEntry:
    with (target / path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path=path, size_bytes=(target / path).stat().st_size, sha256=digest)


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def _remarks(plates: Sequence[FoundPlate], stains: Sequence[str], identity: Identity) -> list[str]:
    remarks = [f"Stains found: {', '.join(stains)}."]
    absent = [stain for stain in STAINS if stain not in stains]
    if absent:
        kept = ",".join(stains)
        remarks.append(
            f"Not found: {', '.join(absent)}. Ingest takes the plates with --set 'ingest.channels=[{kept}]' --set "
            f"'extractor.channels=[{kept}]'; a model that reads an absent stain cannot be used on them."
        )
    for plate in plates:
        remarks += [
            f"Plate {plate.plate}: {count} image{'s' if count != 1 else ''} of channel {name!r} left out."
            for name, count in sorted(plate.left_out.items())
        ]
        remarks += [f"Plate {plate.plate}: {note}." for note in plate.notes]
        incomplete = [item for item in plate.fields if any(stain not in item.files for stain in stains)]
        if incomplete:
            first = incomplete[0]
            missing = ", ".join(stain for stain in stains if stain not in first.files)
            where = f"well {well_name(*first.place)} site {first.site}: {missing}"
            remarks.append(
                f"Plate {plate.plate}: {len(incomplete)} of {len(plate.fields)} fields lack a stain ({where})."
            )
    if identity.plate_map is None:
        remarks.append(
            "No plate map was given: every well counts as a treatment of its own, and none as a control. Validation "
            "refuses plates without controls; give --plate-map (docs/data_contracts.md) when the wells are known."
        )
    return remarks
