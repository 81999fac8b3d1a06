"""A folder with a load_data table beside its images, of either generation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from coda.contracts.manifest import STAINS
from coda.errors import ContractError, Problem, raise_if_any
from coda.plates.adopt.found import FoundField, FoundPlate, safe_name
from coda.plates.layout import parse_well
from coda.plates.load_data import FieldRow, read_fields, stains_of
from coda.plates.tables import FileResolver, UnreadableTableError, read_table

ENDINGS = (".csv", ".csv.gz", ".parquet")
IMAGES = {".tif", ".tiff", ".png"}


def find_plates(folder: Path, channels: Mapping[str, str]) -> list[FoundPlate]:
    """Return the plates that the folder's load_data table (`*load_data*.csv`, `.csv.gz`, `.parquet`) names.

    Args:
        folder: Folder with the table, and the images at any depth below it.
        channels: Name after `Orig` in the table's columns -> stain, where it is not the stain's own.

    Raises:
        ContractError: There is not exactly one table, or it has problems; all of them together.
    """
    path = _table_of(folder)
    try:
        table = read_table(path.read_bytes())
    except UnreadableTableError as error:
        problem = Problem(str(path), f"a table that {error}", "a load_data table", "Write load_data again.")
        raise ContractError(f"{path} cannot be adopted.", [problem]) from error
    table, left_out = _with_stains(table, channels)
    images = {item.relative_to(folder).as_posix(): item for item in folder.rglob("*") if item.suffix.lower() in IMAGES}
    if "Metadata_Plate" not in table.columns:
        table["Metadata_Plate"] = folder.name
    declared = [stain for stain in stains_of(list(table.columns)) if stain in STAINS]
    found: list[FoundPlate] = []
    problems: list[Problem] = []
    for name, rows in table.groupby("Metadata_Plate", sort=True):
        resolver = FileResolver(images)
        fields, faults = read_fields(
            rows, where=str(path), plate=str(name), declared=declared, wells=1536, resolver=resolver
        )
        problems += faults
        found.append(_plate(str(name), fields, images, left_out=left_out, settings=_settings(rows)))
    raise_if_any(ContractError, f"{path} cannot be adopted.", problems)
    return found


def _table_of(folder: Path) -> Path:
    tables = sorted(item for item in folder.glob("*load_data*") if item.name.endswith(ENDINGS))
    if len(tables) != 1:
        found = ", ".join(item.name for item in tables) or f"no such table ({', '.join(ENDINGS)})"
        remedy = "Leave exactly one in the folder."
        if not tables:
            remedy = "Write one: a row for each field with Metadata_Plate, Metadata_Well, Metadata_Site and, for each "
            remedy += "stain, FileName_Orig<Stain> (docs/data_contracts.md)."
        problem = Problem(str(folder), found, "one table named *load_data*", remedy)
        raise ContractError(f"{folder} cannot be adopted.", [problem])
    return tables[0]


def _with_stains(table: pd.DataFrame, channels: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, int]]:
    """Rename the columns of mapped channels, and drop those of channels that are no stain."""
    kept: dict[str, str] = {}
    left_out: dict[str, int] = {}
    present = stains_of(list(table.columns))
    for column in table.columns:
        prefix, orig, channel = str(column).partition("_Orig")
        if not orig or prefix not in {"FileName", "PathName", "URL"}:
            kept[column] = column
        elif channels.get(channel, channel) in STAINS:
            kept[column] = f"{prefix}_Orig{channels.get(channel, channel)}"
        elif channel in present:
            left_out[channel] = len(table)
    return table[list(kept)].rename(columns=kept), left_out


@dataclass(frozen=True)
class _Settings:
    """What the instrument's export wrote beside the file names; None or empty where it did not."""

    pixel_size_um: float | None
    bit_depth: int | None
    objective: str


def _settings(rows: pd.DataFrame) -> _Settings:
    """Read the columns that an export of Harmony (Opera Phenix, Operetta) adds: metres a pixel, largest value, lens."""
    metres = _number(rows, "Metadata_ImageResolutionX")
    largest = _number(rows, "Metadata_MaxIntensity")
    lens = [_number(rows, f"Metadata_{name}") for name in ("ObjectiveMagnification", "ObjectiveNA")]
    return _Settings(
        pixel_size_um=metres * 1e6 if metres is not None and 1e-8 < metres < 2e-5 else None,
        bit_depth=(int(largest) - 1).bit_length() if largest is not None and 256 <= largest <= 65536 else None,
        objective=f"{lens[0]:g}x/{lens[1]:g}" if lens[0] is not None and lens[1] is not None else "",
    )


def _number(rows: pd.DataFrame, column: str) -> float | None:
    """Return the one number that a column holds in all rows; None when it is absent or they differ."""
    values = set(rows[column]) if column in rows else set()
    try:
        return float(values.pop()) if len(values) == 1 else None
    except ValueError:
        return None


def _plate(
    name: str, rows: Sequence[FieldRow], images: Mapping[str, Path], *, left_out: dict[str, int], settings: _Settings
) -> FoundPlate:
    fields = []
    for row in rows:
        place = parse_well(row.well)
        if place is not None:
            fields.append(FoundField(place, row.site, {stain: images[path] for stain, path in row.files.items()}))
    return FoundPlate(
        plate=safe_name(name),
        fields=tuple(fields),
        pixel_size_um=settings.pixel_size_um,
        bit_depth=settings.bit_depth,
        objective=settings.objective,
        left_out=left_out,
    )
