"""What a plate store says of itself, read from the file alone, and whether all of its fields can still be read."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from coda.contracts.channels import Role, colours_of, nuclei_of, roles_of
from coda.errors import IntegrityError, Problem
from coda.plates.layout import FORMATS, well_name
from coda.plates.store_reading import StoreFile, damaged
from coda.plates.store_source import RemoteStore
from coda.quality.stats import QC_PREFIX, field_statistics

MAX_SIDE = 2**15
MAX_FIELDS = 200_000
_COLOUR = re.compile("[0-9A-Fa-f]{6}")
_ROLES = TypeAdapter(dict[str, Role])


@dataclass(frozen=True)
class PlateStore:
    """A plate store, as its own metadata describes it.

    Attributes:
        path: The file, or its address in the data store.
        size_bytes: Its size.
        plate: Name of the plate.
        wells: Wells of the plate format.
        stains: Channels along the first axis.
        roles: Their roles, as recorded, else as their names say.
        colours: Their colours in pictures, six hexadecimal digits.
        pixel_size_um: Height and width of a stored pixel.
        provenance: What it was made from and how; empty for a store that another program wrote.
        fields: One row a field: ``Metadata_Well``, ``Metadata_Site``, ``channels``, ``array``, ``height``, ``width``.
    """

    path: Path | RemoteStore
    size_bytes: int
    plate: str
    wells: int
    stains: tuple[str, ...]
    roles: Mapping[str, Role]
    colours: Mapping[str, str]
    pixel_size_um: tuple[float, float]
    provenance: Mapping[str, Any]
    fields: pd.DataFrame


def read_plate(path: Path | RemoteStore) -> PlateStore:
    """Read the metadata of a plate store; pixels stay where they are.

    Raises:
        IntegrityError: The file is no plate store in a zip, or its metadata contradicts itself.
    """
    store = StoreFile(path)
    with _explained(path):
        attributes = _attributes(store, "zarr.json")
        plate = attributes["ome"]["plate"]
        size = len(plate["rows"]) * len(plate["columns"])
        if FORMATS.get(size) != (len(plate["rows"]), len(plate["columns"])):
            message = f"{len(plate['rows'])} x {len(plate['columns'])} wells, which is no plate format"
            raise ValueError(message)
        images = list(islice(_images(store, plate["wells"]), MAX_FIELDS))
        if not images:
            message = "no field at all"
            raise ValueError(message)
        colours, scale = images[0][1:3]
        if any(item[1:3] != (colours, scale) for item in images):
            message = "fields of different channels or pixel sizes"
            raise ValueError(message)
        provenance = dict(attributes.get("coda", {}))
        return PlateStore(
            path=path, size_bytes=store.size, plate=str(plate["name"]), wells=size, stains=tuple(colours),
            colours=colours,
            roles=roles_of(colours, _ROLES.validate_python(provenance.get("roles", {}))), pixel_size_um=scale,
            provenance=provenance, fields=pd.DataFrame([item[0] for item in images]),
        )  # fmt: skip


def _images(
    store: StoreFile, wells: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[dict[str, Any], dict[str, str], tuple[float, float]]]:
    """Yield row, channels with their colours and pixel size of each field, well by well as the plate lists them."""
    for well in wells:
        name = well_name(int(well["rowIndex"]), int(well["columnIndex"]))
        for image in _attributes(store, f"{well['path']}/zarr.json")["ome"]["well"]["images"]:
            group = f"{well['path']}/{image['path']}"
            ome = _attributes(store, f"{group}/zarr.json")["ome"]
            (multiscale,) = ome["multiscales"]
            level = multiscale["datasets"][0]
            (transformation,) = level["coordinateTransformations"]
            _, height_um, width_um = (float(value) for value in transformation["scale"])
            given = ome["omero"]["channels"]
            stains = tuple(str(channel["label"]) for channel in given)
            written = {str(channel["label"]): str(channel.get("color", "")) for channel in given}
            colours = colours_of(stains, {name: text for name, text in written.items() if _COLOUR.fullmatch(text)})
            array = f"{group}/{level['path']}"
            channels, height, width = (int(side) for side in _document(store, f"{array}/zarr.json")["shape"])
            if (
                channels != len(stains)
                or len(colours) != len(stains)
                or not 0 < min(height, width) <= max(height, width) <= MAX_SIDE
            ):
                message = f"{array} has the shape {(channels, height, width)} and {len(stains)} stains"
                raise ValueError(message)
            row = {
                "Metadata_Well": name, "Metadata_Site": int(image["path"]), "channels": ",".join(stains),
                "array": array, "height": height, "width": width,
            }  # fmt: skip
            yield row, colours, (height_um, width_um)


def _document(store: StoreFile, name: str) -> dict[str, Any]:
    return dict(json.loads(store.document(name, at_most=16 * 2**20)))


def _attributes(store: StoreFile, name: str) -> dict[str, Any]:
    return dict(_document(store, name)["attributes"])


@contextmanager
def _explained(path: Path | RemoteStore) -> Iterator[None]:
    """Turn metadata of another shape than a plate's into an `IntegrityError`."""
    with damaged(path):
        try:
            yield
        except (TypeError, AttributeError, LookupError, OverflowError, RecursionError) as error:
            message = f"no metadata of an OME-Zarr plate ({type(error).__name__}: {error})"
            raise ValueError(message) from error


@dataclass(frozen=True)
class Checked:
    """Fields of a store that were all read.

    Attributes:
        fields: The fields that can be read, with ``QC_`` statistics.
        problems: One a field that cannot be read or is not the recorded one.
        recorded: How many fields were held against the SHA-256 of a field index.
    """

    fields: pd.DataFrame
    problems: tuple[Problem, ...]
    recorded: int


def check_fields(store: PlateStore, index: pd.DataFrame | None = None, *, threads: int = 1) -> Checked:
    """Read every field of a store and hold it against its checksums.

    Args:
        store: The store.
        index: Rows of the field index about this plate. Their SHA-256 are compared and their statistics of the raw
            images taken; without it, only the store's own checksums are, and statistics are those of the stored 8-bit
            pixels.
        threads: Threads that read.
    """
    table = store.fields
    if index is not None:
        known = [name for name in index.columns if name not in table.columns or name == "array"]
        table = table.assign(place=range(len(table)))
        table = table.merge(index[known], on="array", how="outer", indicator="listed", validate="one_to_one")
        table = table.sort_values("place").drop(columns="place")
        problems = [
            Problem(f"{store.path}, {row.array}", *_unlisted(str(row.listed)), "Fetch the batch again.")
            for row in table[table["listed"] != "both"].itertuples()
        ]
        table = table[table["listed"] == "both"].drop(columns="listed").reset_index(drop=True)
    else:
        problems = []
    file = StoreFile(store.path)
    rows = table.to_dict("records")
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda row: _read(file, store, row, measure=index is None), rows))
    problems += [item for item in found if isinstance(item, Problem)]
    good = [{**row, **item} for row, item in zip(rows, found, strict=True) if not isinstance(item, Problem)]
    names = None if good else list(table.columns)
    return Checked(pd.DataFrame(good, columns=names), tuple(problems), len(good) if index is not None else 0)


def _unlisted(side: str) -> tuple[str, str]:
    if side == "left_only":
        return "a field that the field index does not list", "fields of the index only"
    return "nothing", "the field that the field index lists"


def _read(file: StoreFile, store: PlateStore, row: Mapping[Any, Any], *, measure: bool) -> dict[str, float] | Problem:
    shape = (len(store.stains), int(row["height"]), int(row["width"]))
    where = f"{store.path}, {row['array']} (well {row['Metadata_Well']}, site {row['Metadata_Site']})"
    try:
        pixels = file.read(str(row["array"]), shape, int(row["crc32c"]) if "crc32c" in row else None)
    except IntegrityError as error:
        return Problem(where, error.problems[0].found, "the pixels that were stored", error.problems[0].remedy)
    if "sha256" in row and hashlib.sha256(pixels.data).hexdigest() != row["sha256"]:
        return Problem(where, "other pixels", f"pixels with the SHA-256 {row['sha256']}", "Fetch the batch again.")
    if not measure:
        return {}
    statistics = field_statistics(
        dict(zip(store.stains, pixels, strict=True)), bit_depth=8, nuclei=nuclei_of(store.roles)
    )
    return {f"{QC_PREFIX}{name}": value for name, value in statistics.items()}
