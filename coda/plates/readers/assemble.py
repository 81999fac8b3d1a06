"""Tables and manifest of found plates, for images that a delivery brings along or that stay where they lie."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from coda.contracts.base import problems_of
from coda.contracts.channels import LEFT_OUT, MAX_CHANNELS, STAINS, Role, clashes, in_order, name_fault
from coda.contracts.manifest import MAX_FILES_OF_A_PLATE, BatchManifest, FileEntry, PlateEntry, version_of
from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.layout import FORMATS, fits, format_of, well_name
from coda.plates.readers.given_maps import csv_text
from coda.plates.readers.listing import PlateListing
from coda.plates.readers.read_options import plain
from coda.plates.solvents import Solvents

MAX_SITES = 100

TABLES = ("load_data", "plate_map")
"""Tables of a plate that stand beside the manifest."""

_PIXEL_REMEDY = (
    "Give --pixel-size: camera pixel times binning, divided by the magnification (6.5 um binned by 2 at 20x: 0.65)."
)


@dataclass(frozen=True)
class Identity:
    """What the tree itself does not say, or what shall replace what it says.

    Attributes:
        source: Laboratory.
        batch: Batch.
        instrument: Name of the microscope.
        modality: Widefield or confocal; from the instrument's files when None.
        pixel_size_um: Edge of a raw pixel; from the instrument's files when None.
        bit_depth: Bits of the grey values; from the instrument's files when None, else 16.
        plate_wells: Wells of the plate format; from the instrument's files when None, else the smallest that fits.
        plate_map: CSV with the wells of all plates; without one the treatments are unknown.
        solvents: Names that no treatment may have; the packaged ones when None.
        created_at: When the batch was delivered; now when None.
        roles: Channel -> what it shows, where its name does not say it.
        colours: Channel -> colour in pictures, where it shall not be the usual one.
    """

    source: str
    batch: str
    instrument: str
    modality: Literal["widefield", "confocal"] | None = None
    pixel_size_um: float | None = None
    bit_depth: int | None = None
    plate_wells: int | None = None
    plate_map: Path | None = None
    solvents: Solvents | None = None
    created_at: datetime | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)
    colours: Mapping[str, str] = field(default_factory=dict)


def stains_of_plates(plates: Sequence[PlateListing]) -> tuple[str, ...]:
    """Return the channels that any field of any plate has, in the usual order."""
    return in_order(stain for plate in plates for item in plate.fields for stain in item.files)


def check_plates(plates: Sequence[PlateListing], identity: Identity, where: str, mapped: Mapping[str, str]) -> None:
    """Hold found plates against what a manifest needs.

    Args:
        plates: Plates as a layout found them.
        identity: What was given beside them.
        where: The tree, for messages.
        mapped: Channel -> its name in the delivery, as the user gave it.

    Raises:
        ContractError: Something must be given that the tree does not say, or plates do not fit each other; all of it.
    """
    problems = _unmatched_channels(plates, mapped)
    problems += [_no_image(plate, where) for plate in plates if not any(item.files for item in plate.fields)]
    if identity.pixel_size_um is None:
        problems += _one_of("pixel size", {plate.pixel_size_um for plate in plates}, where, _PIXEL_REMEDY)
    if identity.modality is None:
        problems += _one_of("modality", {plate.modality for plate in plates}, where, "Give --modality.")
    problems += _format_problems(plates, identity.plate_wells, where)
    for plate in plates:
        files = len(TABLES) + len(plate.illumination) + sum(len(item.files) for item in plate.fields)
        if files > MAX_FILES_OF_A_PLATE:
            found, remedy = f"{files} files", "Leave out channels that nobody needs (--channel NAME=none)."
            problems.append(Problem(f"{where}, plate {plate.plate}", found, f"at most {MAX_FILES_OF_A_PLATE}", remedy))
        most = max(Counter(item.place for item in plate.fields).values(), default=0)
        if most > MAX_SITES:
            found = f"{most} fields in a well"
            remedy = "Check which number is the field, and which the plane or time point."
            problems.append(Problem(f"{where}, plate {plate.plate}", found, f"at most {MAX_SITES}", remedy))
    problems += _name_problems(plates, identity, mapped)
    raise_if_any(ContractError, f"{where} cannot be imported.", problems)


def _unmatched_channels(plates: Sequence[PlateListing], mapped: Mapping[str, str]) -> list[Problem]:
    """Return a problem for channels that the user names and no plate has: a slip would drop the right channel."""
    seen = list(dict.fromkeys(name for plate in plates for name in plate.channels))
    folded = {name.casefold() for name in seen}
    unmatched = [name for name in mapped if name.strip().casefold() not in folded]
    if not unmatched or not seen:
        return []
    found = f"{', '.join(map(plain, unmatched[:20]))}, which no image is called by"
    return [Problem("--channel", found, f"channels among {', '.join(map(plain, seen[:40]))}", "Correct the name.")]


def _name_problems(plates: Sequence[PlateListing], identity: Identity, mapped: Mapping[str, str]) -> list[Problem]:
    """Return what is wrong with the names of channels, and with roles and colours of some that are not there."""
    problems = [
        Problem("--channel", f"{old}={new}", name_fault(new), f"For example --channel '{old}={valid_name(new)}'.")
        for old, new in mapped.items()
        if new != LEFT_OUT and name_fault(new)
    ]
    stains = stains_of_plates(plates)
    for group in clashes(name for name in stains if not name_fault(name)):
        first = group[0]
        remedy = (
            f"Call one otherwise (--channel '{first}={first}-2'), or leave it out (--channel '{first}={LEFT_OUT}')."
        )
        expected = "names that differ in more than letter case"
        problems.append(Problem("channels", f"{' and '.join(map(repr, group))}", expected, remedy))
    if len(stains) > MAX_CHANNELS:
        remedy = "Leave some out (--channel NAME=none)."
        problems.append(Problem("channels", f"{len(stains)} channels", f"at most {MAX_CHANNELS}", remedy))
    for option, stated in (("--role", identity.roles), ("--colour", identity.colours)):
        strange = [name for name in stated if name not in stains]
        if strange:
            expected = f"channels of the delivery ({', '.join(stains)})"
            problems.append(Problem(option, ", ".join(map(plain, strange)), expected, "Correct the name."))
    nuclei = [name for name, role in identity.roles.items() if role == "nuclei"]
    if len(nuclei) > 1:
        expected = "one channel that shows the nuclei"
        problems.append(Problem("--role", f"nuclei for {' and '.join(nuclei)}", expected, "Leave one out."))
    return problems


def valid_name(name: str) -> str:
    """Return a valid name of a channel that is like a text which may be none."""
    kept = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:40]
    usual = {stain.casefold(): stain for stain in STAINS}.get(kept.casefold(), kept)
    return "Actin" if name_fault(usual) else usual


def _no_image(plate: PlateListing, where: str) -> Problem:
    """Return why a plate has no image of a stain: the first cause, which is not always the channels."""
    place = f"{where}, plate {plate.plate}"
    absent = [note for note in plate.notes if " not " in note and "image(s)" in note]
    if plate.fields and absent:
        remedy = "Give the folder that holds the images; where folders were renamed, say how: --moved OLD=NEW."
        return Problem(place, f"no image: {absent[0]}", "images where the tables or the index name them", remedy)
    if plate.fields and any("twice" in note or "used for none" in note for note in plate.notes):
        return Problem(place, "no image that belongs to one field alone", "an image for each field", plate.notes[0])
    remedy = "Say what the channels are called in the delivery (--channel NAME=CHANNEL)"
    found = f"; found {sorted(plate.left_out)[:20]}." if plate.left_out else "; the files name no channel."
    return Problem(place, "no channel that says by its name what it is", "channels with names", remedy + found)


def _one_of(what: str, values: set[float | None] | set[Literal["widefield", "confocal"] | None],
            where: str, remedy: str) -> list[Problem]:  # fmt: skip
    known = sorted({str(value) for value in values if value is not None})
    if len(known) > 1:
        return [Problem(where, f"plates of {what} {' and '.join(known[:5])}", "one a batch",
                        "Import the plates as batches of their own (--only-plate).")]  # fmt: skip
    return [] if known else [Problem(where, f"no {what}", f"a {what}", remedy)]


def _format_problems(plates: Sequence[PlateListing], wells: int | None, where: str) -> list[Problem]:
    if wells is None:
        said = {plate.wells for plate in plates if plate.wells is not None}
        if len(said) > 1:
            found = f"plates of {' and '.join(map(str, sorted(said)))} wells"
            remedy = "Import the plates as batches of their own (--only-plate)."
            return [Problem(where, found, "one format a batch", remedy)]
        return []
    if wells not in FORMATS:
        formats = ", ".join(map(str, FORMATS))
        return [Problem("--plate-wells", str(wells), f"one of {formats}", "Give the format of the plates.")]
    outside = [item.place for plate in plates for item in plate.fields if not fits(item.place, wells)]
    if not outside:
        return []
    found = f"{wells}, but images of well {well_name(*outside[0])}"
    return [Problem("--plate-wells", found, "a format that has all imaged wells", "Give the format of the plates.")]


def wells_of(plates: Sequence[PlateListing], identity: Identity) -> tuple[int, bool]:
    """Return the wells of the plate format, and whether they were only guessed from the imaged wells."""
    said = identity.plate_wells or next((plate.wells for plate in plates if plate.wells), None)
    return said or format_of([item.place for plate in plates for item in plate.fields]), said is None


def tables_of(plate: PlateListing, plate_map: str, stains: Sequence[str]) -> dict[str, str]:
    """Return the tables of a plate as CSV text, by the names that a manifest has for them.

    Returns:
        'load_data' (a row for each field, empty names where a stain lacks) and 'plate_map'.
    """
    rows: list[list[str]] = []
    for item in plate.fields:
        row = [plate.plate, well_name(*item.place), str(item.site)]
        for stain in stains:
            path = item.files[stain].path if stain in item.files else ""
            folder, slash, name = path.rpartition("/")
            row += [name, folder + slash]
        rows.append(row)
    header = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    header += [f"{kind}_Orig{stain}" for stain in stains for kind in ("FileName", "PathName")]
    return {"load_data": csv_text(header, rows), "plate_map": plate_map}


def table_path(plate: str, table: str) -> str:
    """Return where a table of a plate stands beside the manifest."""
    return f"{table}/{plate}.csv"


def plate_entry(plate: PlateListing, tables: Sequence[FileEntry], entry: Callable[[str], FileEntry]) -> PlateEntry:
    """Return the manifest's entry of a plate.

    Args:
        plate: The plate; its images and illumination functions as the manifest shall name them.
        tables: Entries of its tables, at `table_path`.
        entry: Gives size and digest of an image or illumination file by its path.

    Raises:
        ContractError: What the plate says breaks the manifest's schema (a path, the number of files).
    """
    paths = {image.path for item in plate.fields for image in item.files.values()} | set(plate.illumination.values())
    sites = Counter(item.place for item in plate.fields)
    values = {
        "plate": plate.plate,
        **{name: table_path(plate.plate, name) for name in TABLES},
        # where wells differ nobody knows what was meant; load_data lists what each should have
        "sites_per_well": next(iter(sites.values())) if len(set(sites.values())) == 1 else None,
        "illumination": dict(plate.illumination),
    }
    try:
        return PlateEntry.model_validate({**values, "files": (*(entry(path) for path in sorted(paths)), *tables)})
    except ValidationError as error:
        raise ContractError(f"Plate {plate.plate} cannot be described.", problems_of(error, plate.plate)) from error


def manifest_of(
    plates: Sequence[PlateListing],
    entries: Sequence[PlateEntry],
    identity: Identity,
    *,
    images_at: str | None = None,
    preparation: Literal["raw", "deepprofiler"] = "raw",
) -> BatchManifest:
    """Return the manifest of found plates.

    Args:
        plates: The plates, after `check_plates`.
        entries: Their entries, in the same order.
        identity: What was given beside them.
        images_at: Where images and illumination functions lie, when not beside the manifest.
        preparation: Whether the images are raw.

    Raises:
        ContractError: Something breaks the manifest's schema (a name given by the user, for example).
    """
    instrument = {
        "name": identity.instrument,
        "modality": identity.modality or next((plate.modality for plate in plates if plate.modality), None),
        "objective": next((plate.objective for plate in plates if plate.objective), ""),
        "pixel_size_um": identity.pixel_size_um or next((p.pixel_size_um for p in plates if p.pixel_size_um), None),
        "bit_depth": identity.bit_depth or max((plate.bit_depth or 0 for plate in plates), default=0) or 16,
    }
    values = {
        "schema_version": version_of(entries),
        "source": identity.source,
        "batch": identity.batch,
        "created_at": identity.created_at or datetime.now(UTC),
        "instrument": instrument,
        "channels": stains_of_plates(plates),
        "roles": dict(identity.roles),
        "colours": dict(identity.colours),
        "plate_wells": wells_of(plates, identity)[0],
        "plates": tuple(entries),
        "images_at": images_at,
        "preparation": preparation,
    }
    try:
        return BatchManifest.model_validate(values)
    except ValidationError as error:
        where = f"{identity.source}/{identity.batch}"
        raise ContractError(f"{where} cannot be described.", problems_of(error, where)) from error
