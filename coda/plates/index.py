"""The tables of a batch folder: field index and wells, written whole or not at all."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coda.contracts.fields import METADATA_COLUMNS, FieldRecord
from coda.durable import give_name
from coda.plates.plate_map import WellRow

INGESTED_NAME = "index_ingested.parquet"
"""The index as ingest wrote it, kept when validation takes refused plates out of ``index.parquet``."""

WELL_COLUMNS = ("source", "batch", "plate", "well", "treatment", "compound", "pert_type", "dose_um")


def index_row(record: FieldRecord, statistics: dict[str, float]) -> dict[str, Any]:
    """Return one row of the field index: metadata, where the pixels lie, and the QC statistics."""
    row: dict[str, Any] = {"image_id": record.image_id}
    row |= {column: getattr(record, name) for name, column in METADATA_COLUMNS.items()}
    row |= {"channels": ",".join(record.channels)}
    row |= {name: getattr(record, name) for name in ("store", "array", "height", "width", "sha256", "crc32c")}
    return row | statistics


def index_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return the field index; its columns have their types also when a batch has no row or no dose."""
    table = pd.DataFrame(list(rows))
    if table.empty:
        names = [
            "image_id",
            *METADATA_COLUMNS.values(),
            "channels",
            "store",
            "array",
            "height",
            "width",
            "sha256",
            "crc32c",
        ]
        table = pd.DataFrame({name: pd.Series(dtype="str") for name in names})
        return table.astype({"Metadata_Site": "int64", "height": "int64", "width": "int64", "crc32c": "int64"}).astype(
            {"Metadata_Dose_uM": "float64", "Metadata_PixelSize_um": "float64"}
        )
    table["Metadata_Dose_uM"] = table["Metadata_Dose_uM"].astype("float64")
    return table


def record_of(row: dict[str, Any]) -> FieldRecord:
    """Return the FieldRecord of a row of the index; raises pydantic's ValidationError when it breaks the contract."""
    values = {name: row[column] for name, column in METADATA_COLUMNS.items()}
    values |= {name: row[name] for name in ("store", "array", "sha256")}
    values |= {"site": int(row["Metadata_Site"]), "height": int(row["height"]), "width": int(row["width"])}
    values["crc32c"] = int(row["crc32c"])
    dose = row["Metadata_Dose_uM"]
    values["dose_um"] = None if dose is None or np.isnan(dose) else float(dose)
    values["pixel_size_um"] = float(row["Metadata_PixelSize_um"])
    values["channels"] = tuple(str(row["channels"]).split(","))
    return FieldRecord.model_validate(values)


def wells_table(
    wells: Sequence[WellRow], accepted: dict[str, int], *, source: str, batch: str, plate: str, sites: Mapping[str, int]
) -> pd.DataFrame:
    """Return the plate map of one plate as rows of ``wells.parquet``.

    Args:
        wells: The plate map.
        accepted: Well -> number of fields in the plate store.
        source: Laboratory.
        batch: Batch.
        plate: Plate.
        sites: Well that is not empty -> fields it should have.
    """
    rows = [
        {
            "source": source, "batch": batch, "plate": plate, "well": well.well, "treatment": well.treatment,
            "compound": well.compound, "pert_type": well.pert_type, "dose_um": well.dose_um,
            "fields_expected": sites.get(well.well, 0),
            "fields_accepted": accepted.get(well.well, 0),
        }
        for well in wells
    ]  # fmt: skip
    names = [*WELL_COLUMNS, "fields_expected", "fields_accepted"]
    table = pd.DataFrame(rows, columns=names).rename(columns=METADATA_COLUMNS)
    types = dict.fromkeys(table.columns, "str")
    types |= {"Metadata_Dose_uM": "float64", "fields_expected": "int64", "fields_accepted": "int64"}
    return table.astype(types)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table whole or not at all, each page with a checksum that reading holds it against."""
    draft = path.with_name(path.name + ".part")
    table.to_parquet(draft, index=False, write_page_checksum=True)
    give_name(draft, path)
