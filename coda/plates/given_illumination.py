"""Illumination functions that a delivery brings with it, as numpy files; every byte of them is distrusted."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from coda.config.params import Illumination
from coda.contracts.manifest import FileEntry, PlateEntry
from coda.errors import Problem
from coda.plates.batch_files import BatchFiles
from coda.plates.reading import SetAsideError, read_verified

MAX_HEADER = 10_000
REMEDY = "Deliver the function again, or leave `illumination` out of the manifest: ingest then estimates its own."


def functions_given(entry: PlateEntry, channels: Sequence[str]) -> bool:
    """Return whether a plate brings a function for each of the stains that are stored."""
    return all(stain in entry.illumination for stain in channels)


@dataclass(frozen=True)
class GivenFunctions:
    """What reading them gave.

    Attributes:
        functions: What images are divided by, float32, (channels, height, width); None when one cannot be used.
        problems: All that is wrong.
        delivered: Whether the files were there as the manifest says.
    """

    functions: NDArray[np.float32] | None
    problems: tuple[Problem, ...]
    delivered: bool


def read_functions(
    files: BatchFiles, entry: PlateEntry, channels: Sequence[str], shape: tuple[int, int], rules: Illumination
) -> GivenFunctions:
    """Read the illumination functions of a plate.

    Each is divided by its own low percentile, as an estimated one is, but not cut at 1: the height of a function means
    nothing (an image is stretched afterwards), except beside the plate's percentile of raw grey values.

    Args:
        files: The delivery.
        entry: The plate; it has a function for each stain.
        channels: Stains in the order wanted.
        shape: Height and width of the plate's raw images.
        rules: Its floor percentile is used.

    Raises:
        TransientError: The storage is away.
    """
    listed: Mapping[str, FileEntry] = {file.path: file for file in entry.files}
    paths: Mapping[str, str] = {str(stain): path for stain, path in entry.illumination.items()}
    problems: list[Problem] = []
    functions = []
    delivered = True
    for stain in channels:
        path = paths[stain]
        try:
            data = read_verified(files, listed[path], max_bytes=8 * math.prod(shape) + MAX_HEADER)
            function = _function(data, shape)
            functions.append(function / np.float32(np.percentile(function, rules.floor_percentile)))
        except SetAsideError as error:
            delivered = delivered and not error.delivery
            where = f"plate {entry.plate}, {path}"
            expected = f"the illumination function of {stain}: {shape[0]} x {shape[1]} numbers above 0"
            problems.append(Problem(where, f"a file that {error.reason}", expected, REMEDY))
    return GivenFunctions(None if problems else np.stack(functions), tuple(problems), delivered)


def _function(data: bytes, shape: tuple[int, int]) -> NDArray[np.float32]:
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        found, _, kind = read_header(stream, max_header_size=MAX_HEADER)
        if kind.kind == "f" and found == shape:
            stream.seek(0)
            values = np.asarray(npy.read_array(stream, allow_pickle=False, max_header_size=MAX_HEADER))
    except (ValueError, KeyError, EOFError, OSError, TypeError) as error:
        raise SetAsideError(f"is no numpy array ({' '.join(str(error).split())[:120]})") from error
    if kind.kind != "f":
        raise SetAsideError(f"holds values of type {kind}")
    if found != shape:
        raise SetAsideError(f"has the shape {' x '.join(map(str, found))}")
    if not np.isfinite(values).all() or float(values.min()) <= 0:
        raise SetAsideError("has values that are not finite, or not above 0")
    return np.asarray(values, dtype=np.float32)
