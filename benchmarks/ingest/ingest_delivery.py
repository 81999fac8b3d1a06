"""A delivery of full-size fields to measure ingest on: a few simulated fields, under as many names as a plate has."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.contracts.channels import STAINS
from coda.contracts.manifest import MANIFEST_NAME, BatchManifest, FileEntry
from coda.plates.layout import FORMATS, well_name
from coda.plates.plate_map import COLUMNS
from coda.simulation.delivery_files import describe_file, write_image
from coda.simulation.design import Design, plan_experiment
from coda.simulation.field import render_field
from coda.simulation.laboratories import find_laboratory

PLATE, WELLS, SITES = "p1", 384, 9
PIXEL_UM = 0.6


@dataclass(frozen=True)
class Delivered:
    """A delivery, and the few different fields it consists of.

    Attributes:
        folder: Where it lies; its manifest is there.
        manifest: What was written.
        fields: Paths of the images of each different field, in the order of the stains.
        side: Edge of an image in pixels.
    """

    folder: Path
    manifest: BatchManifest
    fields: tuple[tuple[Path, ...], ...]
    side: int

    @property
    def raw_bytes(self) -> int:
        """Bytes of a field's raw pixels."""
        return len(STAINS) * self.side * self.side * 2

    @property
    def file_bytes(self) -> float:
        """Bytes of a field's files, on average."""
        return sum(path.stat().st_size for field in self.fields for path in field) / len(self.fields)


def deliver_fields(folder: Path, *, different: int, fields: int, side: int, seed: int = 0) -> Delivered:
    """Render fields, write them as LZW TIFF as instruments do, and give them a manifest; what is there is kept.

    Args:
        folder: Where the delivery goes.
        different: Fields that are rendered.
        fields: Fields of the plate, filled up to whole wells; the rendered ones come again and again, as links.
        side: Edge of an image in pixels.
        seed: Of the simulation.
    """
    paths = [tuple(folder / "rendered" / f"{number}_{stain}.tiff" for stain in STAINS) for number in range(different)]
    for number, images in enumerate(paths):
        _render(images, number, side, seed)
    kinds = [[describe_file(path.parent, path.name) for path in images] for images in paths]
    files: list[FileEntry] = []
    rows: list[list[str]] = []
    for number in range(-(-fields // SITES) * SITES):
        place, site = divmod(number, SITES)
        well = well_name(*divmod(place, FORMATS[WELLS][1]))
        row = [PLATE, well, str(site + 1)]
        for path, kind, stain in zip(paths[number % different], kinds[number % different], STAINS, strict=True):
            name = f"{well}_s{site + 1}_{stain}.tiff"
            _link(path, folder / "images" / name)
            files.append(FileEntry(path=f"images/{name}", size_bytes=kind.size_bytes, sha256=kind.sha256))
            row += [name, "images/"]
        rows.append(row)
    header = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    header += [f"{kind}_Orig{stain}" for stain in STAINS for kind in ("FileName", "PathName")]
    wells = list(dict.fromkeys(row[1] for row in rows))
    plate_map = [[PLATE, well, f"c{number}", f"c{number}", "trt", "1"] for number, well in enumerate(wells)]
    tables = {
        "load_data.csv": pd.DataFrame(rows, columns=header),
        "plate_map.csv": pd.DataFrame(plate_map, columns=list(COLUMNS)),
    }
    for name, table in tables.items():
        table.to_csv(folder / name, index=False)
        files.append(describe_file(folder, name))
    manifest = BatchManifest.model_validate(
        {
            "source": "benchmark",
            "batch": "b1",
            "created_at": "2026-01-01T00:00:00Z",
            "instrument": {"name": "simulated", "modality": "confocal", "pixel_size_um": PIXEL_UM, "bit_depth": 16},
            "channels": STAINS,
            "plate_wells": WELLS,
            "plates": [
                {
                    "plate": PLATE,
                    "plate_map": "plate_map.csv",
                    "load_data": "load_data.csv",
                    "sites_per_well": SITES,
                    "files": files,
                }
            ],
        },
        strict=False,
    )
    manifest.write(folder / MANIFEST_NAME)
    return Delivered(folder, manifest, tuple(paths), side)


def _render(images: Sequence[Path], number: int, side: int, seed: int) -> None:
    if all(path.is_file() for path in images):
        return
    images[0].parent.mkdir(parents=True, exist_ok=True)
    design = Design(field_px=side, binning=1)
    experiment = plan_experiment(seed, design)
    wells = experiment.imaged_wells()
    well = wells[number % len(wells)]
    laboratory = find_laboratory("lab_a")
    compound = experiment.compound(well.compound)
    pixels: NDArray[np.uint16] = render_field(seed, laboratory, ("b1", PLATE), well, compound, number + 1, design)
    for path, image in zip(images, pixels, strict=True):
        draft = path.with_suffix(".part")
        write_image(draft, image, PIXEL_UM, "lzw")
        draft.replace(path)


def _link(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    os.link(path, place)
