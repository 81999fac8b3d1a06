"""Plate store: an OME-Zarr HCS plate (NGFF 0.5, zarr v3) in one zip, one array of one chunk for each field.

The zip's entries are stored, not deflated: a chunk lies in the file as the codecs wrote it and is read by one seek. Any
zarr reader opens the store; `coda.plates.store_reading` is the fast way in. A chunk ends in its CRC-32C (zarr's own
codec `crc32c`), so that any reader notices a damaged one. The bytes of a store depend on its contents alone.
"""

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from coda.contracts.channels import colours_of
from coda.durable import give_name
from coda.plates.layout import FORMATS, row_name

CODEC = {"typesize": 1, "cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}
CRC_BYTES = 4
_RESIDUE = 0x48674BC7
"""CRC-32C of any bytes followed by their own CRC-32C: what a sound chunk as a whole has."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Return the chunk of one field, uint8 (channels, height, width), as the store keeps it."""
    import google_crc32c
    import imagecodecs

    data = np.ascontiguousarray(pixels).tobytes()
    frame = bytes(
        imagecodecs.blosc_encode(data, level=5, compressor="lz4", shuffle="bitshuffle", typesize=1, numthreads=1)
    )
    return frame + int(google_crc32c.value(frame)).to_bytes(CRC_BYTES, "little")


def checksum(chunk: bytes | NDArray[np.uint8]) -> int:
    """Return the CRC-32C that a chunk ends in, as the field index keeps it."""
    return int.from_bytes(bytes(chunk[-CRC_BYTES:]), "little")


def decode(
    chunk: bytes | NDArray[np.uint8], shape: tuple[int, int, int], out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Return the pixels of a chunk.

    Args:
        chunk: The bytes as stored, possibly in an array.
        shape: Channels, height and width.
        out: Array of this shape, C order, to decode into; a new one when None.

    Raises:
        ValueError: The bytes are no such chunk, or damaged.
    """
    import google_crc32c
    import imagecodecs

    # a blosc frame begins with its decoded size (bytes 4 to 8) and its own length (12 to 16); the codec believes both,
    # and would allocate gigabytes or read beyond the end of a damaged one
    data: Any = np.frombuffer(chunk, dtype=np.uint8)  # the codecs take any buffer, their stubs do not say so
    decoded, length = (int.from_bytes(data[start : start + 4].tobytes(), "little") for start in (4, 12))
    if len(data) < 16 + CRC_BYTES or length != len(data) - CRC_BYTES or decoded != math.prod(shape):
        message = f"the chunk does not hold an array of {shape}"
        raise ValueError(message)
    if google_crc32c.value(data) != _RESIDUE:
        message = "the chunk is damaged (its CRC-32C is another)"
        raise ValueError(message)
    pixels = np.empty(shape, dtype=np.uint8) if out is None else out
    target: Any = pixels.reshape(-1)
    try:
        imagecodecs.blosc_decode(data[:-CRC_BYTES], numthreads=1, out=target)
    except (RuntimeError, ValueError) as error:
        message = f"the chunk cannot be decoded ({error})"
        raise ValueError(message) from error
    return pixels


@dataclass(frozen=True)
class StoredField:
    """One encoded field on its way into a store; `place` is (row, column), both from 0."""

    place: tuple[int, int]
    site: int
    shape: tuple[int, int, int]
    chunk: bytes


@dataclass
class PlateStoreWriter:
    """Writes one store as a stream of fields; the file appears under its name when all of it is written.

    Attributes:
        path: The finished file, `<plate>.ome.zarr.zip`.
        plate: Name of the plate.
        wells: Wells of the plate format.
        channels: Stains along the first axis.
        pixel_size_um: Edge of a stored pixel.
        provenance: What the store was made from and how; kept in its metadata under "coda".
        colours: Channel -> colour in pictures (six hexadecimal digits); the usual ones for those without.
    """

    path: Path
    plate: str
    wells: int
    channels: Sequence[str]
    pixel_size_um: tuple[float, float]
    provenance: Mapping[str, Any]
    colours: Mapping[str, str] = field(default_factory=dict)
    _sites: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._draft = self.path.with_name(self.path.name + ".part")
        self._zip = zipfile.ZipFile(self._draft, "w", zipfile.ZIP_STORED, allowZip64=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
            self._zip.close()
            give_name(self._draft, self.path)
            return
        # closing writes the directory, which a full disk refuses again; the draft goes either way
        try:
            self._zip.close()
        except OSError:
            self._zip.fp = None
        self._draft.unlink(missing_ok=True)

    def add(self, item: StoredField) -> str:
        """Append a field and return the path of its array; fields of one well must follow each other."""
        group = f"{array_group(item.place)}/{item.site}"
        self._sites.setdefault(item.place, []).append(item.site)
        self._put(f"{group}/zarr.json", _json(self._image(f"{self.plate}/{group}")))
        self._put(f"{group}/0/zarr.json", _json(_array(item.shape)))
        self._put(f"{group}/0/c/0/0/0", item.chunk)
        return f"{group}/0"

    def _put(self, name: str, data: bytes) -> None:
        self._zip.writestr(zipfile.ZipInfo(name, _EPOCH), data)

    def _finish(self) -> None:
        rows, columns = FORMATS[self.wells]
        for row in sorted({place[0] for place in self._sites}):
            self._put(f"{row_name(row)}/zarr.json", _json(_group({})))
        most = max((len(sites) for sites in self._sites.values()), default=0)
        for place, sites in sorted(self._sites.items()):
            images = [{"path": str(site), "acquisition": 0} for site in sites]
            well = {"version": "0.5", "well": {"images": images}}
            self._put(f"{array_group(place)}/zarr.json", _json(_group({"ome": well})))
        plate = {
            "version": "0.5",
            "name": self.plate,
            "rows": [{"name": row_name(row)} for row in range(rows)],
            "columns": [{"name": str(column + 1)} for column in range(columns)],
            "wells": [
                {"path": array_group(place), "rowIndex": place[0], "columnIndex": place[1]}
                for place in sorted(self._sites)
            ],
            "field_count": most,
            "acquisitions": [{"id": 0, "name": self.plate, "maximumfieldcount": most}],
        }
        attributes = {"ome": {"version": "0.5", "plate": plate}, "coda": dict(self.provenance)}
        self._put("zarr.json", _json(_group(attributes)))

    def _image(self, name: str) -> dict[str, Any]:
        height, width = self.pixel_size_um
        axes = [
            {"name": "c", "type": "channel"},
            {"name": "y", "type": "space", "unit": "micrometer"},
            {"name": "x", "type": "space", "unit": "micrometer"},
        ]
        scale = [{"type": "scale", "scale": [1.0, height, width]}]
        multiscales = [{"name": name, "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
        window = {"min": 0, "max": 255, "start": 0, "end": 255}
        channels = [
            {"label": name, "color": colour, "active": True, "window": window}
            for name, colour in colours_of(self.channels, self.colours).items()
        ]
        return _group({"ome": {"version": "0.5", "multiscales": multiscales, "omero": {"channels": channels}}})


def array_group(place: tuple[int, int]) -> str:
    """Return the path of a well in a store: row and column as the plate's metadata names them, 'B/3'."""
    return f"{row_name(place[0])}/{place[1] + 1}"


def _group(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def _array(shape: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}, {"name": "blosc", "configuration": CODEC}, {"name": "crc32c"}],
        "dimension_names": ["c", "y", "x"],
        "attributes": {},
    }


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
