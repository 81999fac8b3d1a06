"""How the pixels of stored fields were prepared, as their plate stores say, and whether a model was trained on such.

A model reads prepared pixels: corrected for illumination, stretched between percentiles, brought to another size. Each
plate store carries the parameters of that in its provenance; a model's record carries those of the plates that it was
trained on (decision 0015). Fields that were prepared in another way look to a model like other cells.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coda.errors import ConfigError, Problem, raise_if_any
from coda.plates.dataset import BatchFolder
from coda.plates.store_reading import StoreFile, damaged

PREPARATIONS, PIXEL_SIZES = "preparations", "pixel_size_um"
"""Keys of a model's record: the distinct preparations of its training plates, and their smallest and largest pixel."""

PIXEL_TOLERANCE = 1.25
"""Factor by which a stored pixel may lie outside the range that a model was trained on.

Cameras behind one objective differ by a tenth (0.598 and 0.65 um in JUMP), which the paper's method lives with; another
objective is a factor of two, and shows the model cells of another size.
"""

_KIND = "preparation"
_FREE = frozenset({"channels", "renamed", "earlier_illumination", "solvents", "max_side_px", "workers", "scratch_gib"})
"""Parameters of ingest without influence on the pixels of one stain."""


@dataclass(frozen=True)
class Prepared:
    """How the fields of one plate were prepared.

    Attributes:
        how: ``preparation`` (kind of the images as delivered) and, for raw images, dotted parameter -> value.
        pixel_size_um: Smallest and largest edge of a stored pixel.
        where: Its plate store.
    """

    how: Mapping[str, Any]
    pixel_size_um: tuple[float, float]
    where: str


def prepared(batches: Sequence[BatchFolder]) -> list[Prepared]:
    """Return how the accepted plates of batches were prepared, plate by plate.

    Raises:
        IntegrityError: A plate store is absent or damaged.
    """
    return [plate for batch in batches for plate in _plates(batch)]


def _plates(batch: BatchFolder) -> Iterator[Prepared]:
    for name, rows in batch.accepted.groupby("store", sort=True):
        path = batch.store(str(name))
        store = StoreFile(path)
        with damaged(path):
            document = json.loads(store.document("zarr.json", at_most=16 * 2**20))
            ingest = dict(document["attributes"].get("coda", {}).get("ingest", {}))
        sizes = rows["Metadata_PixelSize_um"].astype(float)
        how = _how(batch.manifest.preparation, ingest)
        yield Prepared(how, (float(sizes.min()), float(sizes.max())), str(path))


def _how(kind: str, ingest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the pixels; images that come prepared are stored as they are."""
    if kind != "raw":
        return {_KIND: kind}
    found: dict[str, Any] = {_KIND: kind}
    for key, value in ingest.items():
        if key == "illumination" and isinstance(value, Mapping):
            rules = dict(value) if value.get("enabled") else {"enabled": False}
            found |= {f"ingest.illumination.{name}": item for name, item in rules.items()}
        elif key not in _FREE and not (key == "scaling_factor" and ingest.get("pixel_size_um") is not None):
            found[f"ingest.{key}"] = value
    return found


def record_of(plates: Sequence[Prepared]) -> dict[str, Any]:
    """Return what a model keeps of the plates that it is trained on; nothing without plates."""
    if not plates:
        return {}
    distinct = {json.dumps(plate.how, sort_keys=True): dict(plate.how) for plate in plates}
    sizes = [size for plate in plates for size in plate.pixel_size_um]
    return {PREPARATIONS: [distinct[key] for key in sorted(distinct)], PIXEL_SIZES: [min(sizes), max(sizes)]}


def known_parameters(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of ingest that all training plates of a model share, by their dotted paths."""
    every = record.get(PREPARATIONS) or []
    first = every[0] if every else {}
    return {
        path: value
        for path, value in first.items()
        if path != _KIND and all(path in how and how[path] == value for how in every)
    }


def require_prepared(plates: Sequence[Prepared], record: Mapping[str, Any], model: str) -> list[str]:
    """Refuse plates that were prepared in another way than those that a model was trained on.

    Returns:
        Sentences about what no record tells: nothing is refused for that.

    Raises:
        ConfigError: A plate was prepared in another way, or its pixels are of another size; all of them together.
    """
    every = record.get(PREPARATIONS)
    if not every:
        return [f"{model}: no record tells how the pixels were prepared that it was trained on"]
    problems: list[Problem] = []
    for plate in plates:
        problems += _differences(plate, every, model)
        problems += _pixels(plate, record[PIXEL_SIZES], model)
    raise_if_any(ConfigError, f"Fields are prepared in another way than those that {model} was trained on.", problems)
    untold = [plate for plate in plates if plate.how == {_KIND: "raw"}]
    return [f"{plate.where}: no record tells how it was prepared" for plate in untold]


def _differences(plate: Prepared, every: Sequence[Mapping[str, Any]], model: str) -> list[Problem]:
    """Return how a plate differs from the training plates it is most like, in what both of them tell."""
    found = [{path for path in plate.how.keys() & how.keys() if plate.how[path] != how[path]} for how in every]
    nearest = min(range(len(every)), key=lambda number: len(found[number]))
    remedy = "Ingest the batch again with the recorded value, or use a model that was trained on such fields."
    return [
        Problem(
            f"{plate.where}: {path}", repr(plate.how[path]),
            f"{every[nearest][path]!r}, recorded in config.json of {model}", remedy,
        )
        for path in sorted(found[nearest])
    ]  # fmt: skip


def _pixels(plate: Prepared, trained: Sequence[float], model: str) -> list[Problem]:
    (low, high), (smallest, largest) = plate.pixel_size_um, trained
    if low * PIXEL_TOLERANCE >= smallest and high <= largest * PIXEL_TOLERANCE:
        return []
    found = f"stored pixels of {low:g} um" if low == high else f"stored pixels of {low:g} to {high:g} um"
    expected = f"about {smallest:g} to {largest:g} um, recorded in config.json of {model}"
    remedy = f"Correct the pixel size of the manifest, or ingest with ingest.pixel_size_um={largest:g}."
    return [Problem(f"{plate.where}: pixel size", found, expected, remedy)]
