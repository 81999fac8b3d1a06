"""What a plate leaves behind: its store with provenance, its field records, its examples, its illumination."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coda.config.params import Params
from coda.contracts.channels import colours_of, roles_of
from coda.contracts.fields import FieldRecord
from coda.contracts.manifest import BatchManifest
from coda.durable import give_name
from coda.plates.illumination import PlateIllumination
from coda.plates.plate_map import WellRow
from coda.plates.plate_plan import MACHINE, PlatePlan
from coda.plates.reading import FieldJob, PlateJob
from coda.plates.scaling import scaling_factor
from coda.plates.store import PlateStoreWriter
from coda.plates.work import CompressedField, Example

EXAMPLES, PLATES_SHOWN = 2, 8
"""Fields of a plate, and plates of a batch, of which small pictures are kept: as many as a report shows, since every
step of a run is handed them."""


@dataclass(frozen=True)
class PlateFolders:
    """Where the results of a plate go: the batch folder, and the work folder that is removed at the end."""

    batch: Path
    work: Path

    def part(self, plate: str, suffix: str) -> Path:
        """Return the path of one of a plate's results in the work folder."""
        return self.work / f"{plate}{suffix}"


@dataclass(frozen=True)
class Stored:
    """A field that lies in the store now, and the path of its array there."""

    result: CompressedField
    array: str


def store_writer(
    manifest: BatchManifest, plan: PlatePlan, illumination: PlateIllumination, folders: PlateFolders, params: Params
) -> PlateStoreWriter:
    """Return the writer of a plate's store, with its provenance."""
    plate = plan.entry.plate
    pixel = _pixel_size(manifest, illumination.shape, scaling_factor(manifest, params.ingest))
    provenance = {
        "source": manifest.source,
        "batch": manifest.batch,
        "plate": plate,
        "manifest_digest": manifest.digest(),
        "content_key": plan.content_key,
        "instrument": manifest.instrument.model_dump(mode="json"),
        "ingest": params.ingest.model_dump(mode="json", exclude=set(MACHINE)),
        "illumination": {
            "origin": illumination.origin,
            "fields": illumination.fields,
            "low": illumination.low.tolist(),
            "high": illumination.high.tolist(),
        },
    }
    named = manifest.renamed(params.ingest.renamed)
    provenance |= {"roles": roles_of(params.ingest.channels, named.roles)}
    path = folders.batch / store_name(plate)
    colours = colours_of(named.channels, named.colours)
    return PlateStoreWriter(path, plate, manifest.plate_wells, params.ingest.channels, pixel, provenance, colours)


def store_name(plate: str) -> str:
    """Return the file name of a plate's store."""
    return f"{plate}.ome.zarr.zip"


def _pixel_size(manifest: BatchManifest, shape: tuple[int, int], factor: float) -> tuple[float, float]:
    """Return height and width of a stored pixel in micrometres; they differ a little for odd raw sides."""
    raw = manifest.instrument.pixel_size_um
    return raw * shape[0] / max(1, int(shape[0] * factor)), raw * shape[1] / max(1, int(shape[1] * factor))


def field_record(manifest: BatchManifest, job: PlateJob, item: FieldJob, well: WellRow, stored: Stored) -> FieldRecord:
    """Return the record of one stored field."""
    _, height, width = stored.result.shape
    return FieldRecord.model_validate(
        {
            "source": manifest.source,
            "batch": manifest.batch,
            "plate": job.plate,
            "well": item.well,
            "site": item.site,
            "treatment": well.treatment,
            "compound": well.compound,
            "pert_type": well.pert_type,
            "dose_um": well.dose_um,
            "pixel_size_um": manifest.instrument.pixel_size_um * job.shape[0] / height,
            "instrument": manifest.instrument.name,
            "channels": job.channels,
            "store": store_name(job.plate),
            "array": stored.array,
            "height": height,
            "width": width,
            "sha256": stored.result.sha256,
            "crc32c": stored.result.crc32c,
        }
    )


def write_examples(path: Path, channels: Sequence[str], examples: Sequence[tuple[str, Example]]) -> None:
    """Write small pictures of some fields (image_id and Example), before and after correction (npz)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        "image_id": np.array([name for name, _ in examples], dtype=np.str_),
        "channels": np.array(channels, dtype=np.str_),
        "raw": np.stack([example.raw for _, example in examples]) if examples else np.zeros(0, dtype=np.uint8),
        "corrected": np.stack([e.corrected for _, e in examples]) if examples else np.zeros(0, dtype=np.uint8),
    }
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as file:
        np.savez_compressed(file, **arrays)
    give_name(draft, path)


def forget_unseen_examples(batch: Path) -> None:
    """Remove the small pictures of plates that no report shows: all but the first by name."""
    for path in sorted((batch / "examples").glob("*.npz"))[PLATES_SHOWN:]:
        path.unlink()


def save_illumination(path: Path, illumination: PlateIllumination) -> None:
    """Write one plate's illumination function and percentiles (npz)."""
    with path.open("wb") as file:
        np.savez(
            file,
            function=illumination.function,
            low=illumination.low,
            high=illumination.high,
            shape=np.array(illumination.shape, dtype=np.int64),
            fields=np.array(illumination.fields, dtype=np.int64),
        )
