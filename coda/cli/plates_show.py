"""`coda plates show`: print a batch or one plate store, check its fields, and write its pictures."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from coda.cli.rows import Column, print_rows
from coda.contracts.channels import words_of
from coda.contracts.ingest import REPORT_NAME, IngestReport, PlateOutcome
from coda.errors import ConfigError, IntegrityError, Problem, raise_if_any
from coda.plates.dataset import BatchFolder
from coda.plates.inspection import Checked, PlateStore, check_fields, read_plate
from coda.plates.plate_pictures import PlateToDraw, draw_plate
from coda.plates.store_source import RemoteStore
from coda.settings import read_settings
from coda.storage.plate_stores import DataStore

MOST_PROBLEMS = 20


def show_plates(
    place: Annotated[Path, typer.Argument(help="Batch folder (DATASET/SOURCE/BATCH), or one plate's .ome.zarr.zip.")],
    plate: Annotated[list[str] | None, typer.Option(help="Only this plate; may repeat.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("pictures"),
) -> None:
    """Print each plate, check every field's checksum, and write contact sheet, wells and heat maps (PNG)."""
    console = Console(highlight=False)
    if place.is_file():
        folder = _folder_of(place)
        problems = _show(console, place, place.name, folder, folder.batch_id if folder else "", out)
    else:
        folder = _batch(place)
        chosen = _chosen(folder.ingest, plate or [])
        _tell(console, folder)
        problems = []
        for name in chosen:
            problems += _show(console, folder.store(name), name, folder, folder.batch_id, out)
    raise_if_any(IntegrityError, f"{_count(len(problems))} cannot be read as stored.", problems[:MOST_PROBLEMS])


def _batch(place: Path) -> BatchFolder:
    if not (place / REPORT_NAME).is_file():
        problem = Problem(str(place), f"no {REPORT_NAME}", "a batch folder that ingest has finished, or a plate store",
                          "Name DATASET/SOURCE/BATCH, or run `coda step ingest` first.")  # fmt: skip
        raise ConfigError("This is neither an ingested batch nor a plate store.", [problem])
    folder = BatchFolder(place)
    # a folder with its stores in it is shown without any service
    return BatchFolder(place, DataStore(read_settings())) if folder.references.stores else folder


def _folder_of(store: Path) -> BatchFolder | None:
    """Return the batch that a store lies in, or None for a store by itself."""
    folder = BatchFolder(store.parent)
    if not (folder.path / REPORT_NAME).is_file():
        return None
    return folder if store.name in {outcome.store for outcome in folder.ingest.plates} else None


def _chosen(report: IngestReport, names: list[str]) -> list[str]:
    known = [outcome.plate for outcome in report.plates]
    unknown = sorted(set(names) - set(known))
    if unknown:
        problem = Problem("--plate", ", ".join(unknown), f"plates among {', '.join(known)}", "Correct the name.")
        raise ConfigError("There is no such plate in this batch.", [problem])
    return [item.store for item in report.plates if item.store and (not names or item.plate in names)]


def _show(
    console: Console, path: Path | RemoteStore, name: str, folder: BatchFolder | None, batch_id: str, out: Path
) -> list[Problem]:
    store = read_plate(path)
    index = None
    if folder is not None:
        index = folder.ingested[folder.ingested["store"] == name].reset_index(drop=True)
    checked = check_fields(store, index, threads=min(8, os.cpu_count() or 1))
    _describe(console, store, checked, index)
    if len(checked.fields):
        title = f"{batch_id}, plate {store.plate}" if batch_id else f"plate {store.plate}"
        drawn = PlateToDraw(path, checked.fields, store.wells, store.plate, title, store.roles, store.colours)
        for picture in draw_plate(drawn, out):
            console.print(f"Wrote {picture}", soft_wrap=True, markup=False)
    return list(checked.problems)


def _describe(console: Console, store: PlateStore, checked: Checked, index: pd.DataFrame | None) -> None:
    fields = store.fields
    height, width = store.pixel_size_um
    sides = fields[["height", "width"]].drop_duplicates()
    shapes = ", ".join(f"{row.height} x {row.width}" for row in sides.head(4).itertuples())
    per_well = fields.groupby("Metadata_Well").size()
    rows = [
        ("file", f"{store.path} ({store.size_bytes / 2**20:.1f} MiB)"),
        (
            "channels",
            ", ".join(f"{name} ({store.roles[name]})" if name in store.roles else name for name in store.stains),
        ),
        ("colours", words_of(store.stains, store.roles, store.colours)),
        ("pixel", f"{height:.4g} um" if abs(height - width) < 1e-9 else f"{height:.4g} x {width:.4g} um"),
        ("plate", f"{store.wells} wells, {len(per_well)} of them with fields"),
        ("fields", f"{len(fields)} of {shapes} pixels, {per_well.min()} to {per_well.max()} a well"),
        *_provenance(store.provenance),
        ("checksums", _checks(checked, fields, index)),
    ]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(min_width=12)
    grid.add_column(overflow="fold")
    for name, words in rows:
        grid.add_row(Text(name, "dim"), Text(words))
    console.print(Text(f"\nPlate {store.plate}"), Padding(grid, (0, 0, 0, 2)))


def _checks(checked: Checked, fields: pd.DataFrame, index: pd.DataFrame | None) -> str:
    if checked.problems:
        return f"{_count(len(checked.problems))} damaged, or not as recorded"
    if index is None:
        return f"{_count(len(fields))} read, each with its CRC-32C; no field index beside the store to compare with"
    return f"{_count(checked.recorded)} read, each with the SHA-256 of the field index"


def _count(fields: int) -> str:
    return f"{fields} field{'' if fields == 1 else 's'}"


def _provenance(provenance: Mapping[str, object]) -> list[tuple[str, str]]:
    if not provenance:
        return [("made by", "another program: no provenance of ours in its metadata")]
    instrument, light = provenance.get("instrument"), provenance.get("illumination")
    rows = [("batch", f"{provenance.get('source')}/{provenance.get('batch')}")]
    if isinstance(instrument, dict):
        words = [str(instrument.get(key)) for key in ("name", "modality", "objective") if instrument.get(key)]
        rows.append(("microscope", f"{', '.join(words)}; raw pixel {instrument.get('pixel_size_um')} um"))
    if isinstance(light, dict):
        rows.append(("illumination", f"{light.get('origin')}, from {light.get('fields')} fields"))
    return [*rows, ("manifest", f"SHA-256 {provenance.get('manifest_digest')}")]


def _tell(console: Console, folder: BatchFolder) -> None:
    """Print what ingest and validation found, all but the pictures."""
    report = folder.ingest
    refused = set(folder.quality.plates_refused) if folder.quality else set()
    _print_plates(report, refused)
    if folder.quality:
        console.print(f"Validation: {folder.quality.sentence}", soft_wrap=True, markup=False)
    for item in report.problems:
        console.print("Problem", style="red", end=" ")
        console.print(f"{item.where}: found {item.found}; expected {item.expected}. {item.remedy}",
                      soft_wrap=True, markup=False)  # fmt: skip
    for aside in report.quarantined[:40]:
        site = "" if aside.site is None else f" site {aside.site}"
        console.print(f"Set aside: {aside.plate} {aside.well}{site} {aside.channel} {aside.path} {aside.reason}",
                      soft_wrap=True, markup=False)  # fmt: skip
    if len(report.quarantined) > 40:
        console.print(f"... and {len(report.quarantined) - 40} more; all of them are in {folder.path / REPORT_NAME}.")
    for note in report.notes:
        console.print(f"Note: {note}", soft_wrap=True, markup=False)


def _print_plates(report: IngestReport, refused: set[str]) -> None:
    def outcome(item: PlateOutcome) -> str:
        return "read, refused by validation" if item.outcome == "accepted" and item.plate in refused else item.outcome

    columns = (
        Column("plate", lambda item: item.plate),
        Column("outcome", outcome),
        Column("fields", lambda item: f"{item.fields_accepted} of {item.fields_expected}", yields=1),
        Column("illumination", lambda item: item.illumination.replace("_", " "), yields=3),
        Column("store", lambda item: f"{item.store_bytes / 2**20:.1f} MiB" if item.store else "", yields=2),
    )
    typer.echo(f"{report.source}/{report.batch}: {', '.join(report.channels)}")
    print_rows(report.plates, columns)
    for item in report.plates:
        if item.reason:
            typer.echo(f"{item.plate}: {item.reason}")
