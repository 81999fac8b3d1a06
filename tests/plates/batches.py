"""Tiny synthetic deliveries for tests: made here, in the JUMP way, without the simulation."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from coda.contracts import STAINS
from coda.contracts.manifest import FileEntry
from coda.plates.file_lists import written_list
from coda.settings import Settings

SETTINGS = Settings(
    landing="s3://landing", platform="s3://platform", mlflow_uri="sqlite://", data_registry="x",
    data_remote="s3://platform/dvc", checkpoints="x",
)  # fmt: skip


def field(seed, shape=(64, 80), scale=1.0):
    """Return one raw image a stain: blobs on a vignetted background with noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    light = 1 - 0.4 * (rows**2 + columns**2) / 2
    images = {}
    for number, stain in enumerate(STAINS):
        cells = ndimage.gaussian_filter((rng.random(shape) > 0.995).astype(float), 3) * 90000
        image = (400 + 100 * number + cells) * light * scale + rng.normal(0, 15, shape)
        images[stain] = np.clip(image, 0, 65535).astype(np.uint16)
    return images


def tiff(image, **options):
    """Return the bytes of a TIFF."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


@dataclass
class Delivery:
    """A batch on disk, with its manifest as a plain dictionary to break in tests."""

    folder: Path
    manifest: dict

    @property
    def uri(self):
        return str(self.folder / "manifest.json")

    def put(self, path, data, *, list_it=True):
        """Write a file and, unless told otherwise, its true size and digest into the manifest."""
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        if list_it:
            for plate in self.manifest["plates"]:
                for entry in plate["files"]:
                    if entry["path"] == path:
                        entry |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def write(self):
        """Write the manifest."""
        (self.folder / "manifest.json").write_text(json.dumps(self.manifest))
        return self.uri

    def images(self, plate=0):
        """Return the paths of a plate's images."""
        return [e["path"] for e in self.manifest["plates"][plate]["files"] if e["path"].endswith(".tiff")]


def indexed(delivery):
    """Return a delivery whose manifest names a file list for each plate; they are added to the same folder."""
    plates = []
    for plate in delivery.manifest["plates"]:
        own = {plate["plate_map"], plate["load_data"], *plate.get("illumination", {}).values()}
        images = [FileEntry(**entry) for entry in plate["files"] if entry["path"] not in own]
        ref, data = written_list(f"file_list/{plate['plate']}.parquet", images)
        delivery.put(ref.path, data, list_it=False)
        rest = [entry for entry in plate["files"] if entry["path"] in own]
        plates.append({**plate, "files": rest, "file_list": ref.model_dump()})
    return Delivery(delivery.folder, {**delivery.manifest, "schema_version": 2, "plates": plates})


def file_entry(path, data):
    return {"path": path, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def deliver(
    folder, *, plates=1, wells=("B02", "B03", "C02", "C03"), sites=2, shape=(64, 80), compression="lzw",
    source="lab_a", batch="b1",
):  # fmt: skip
    """Write a batch and return it; well number 0 is DMSO, the others have a compound each."""
    folder.mkdir(parents=True, exist_ok=True)
    delivery = Delivery(folder, {"plates": []})
    entries = []
    for number in range(plates):
        plate = f"{batch}_p{number + 1}"
        files, rows = [], []
        maps = ["Metadata_Plate,Metadata_Well,Metadata_Compound,Metadata_Treatment,Metadata_pert_type,Metadata_Dose_uM"]
        for place, well in enumerate(wells):
            control = place == 0
            name = "DMSO" if control else f"cpd{place}"
            maps.append(f"{plate},{well},{name},{name if control else name + '@5'},"
                        f"{'negcon' if control else 'trt'},{'' if control else 5}")  # fmt: skip
            for site in range(1, sites + 1):
                row = {"Metadata_Plate": plate, "Metadata_Well": well, "Metadata_Site": site}
                for stain, image in field(number * 10_000 + place * 100 + site, shape).items():
                    path = f"images/{plate}/{well}_s{site}_{stain}.tiff"
                    data = tiff(image, compression=compression)
                    delivery.put(path, data)
                    files.append(file_entry(path, data))
                    row[f"FileName_Orig{stain}"] = path.rsplit("/", 1)[1]
                    row[f"PathName_Orig{stain}"] = f"images/{plate}/"
                rows.append(row)
        header = ",".join(rows[0])
        tables = {
            f"load_data/{plate}.csv": "\n".join([header, *(",".join(map(str, row.values())) for row in rows)]),
            f"platemaps/{plate}.csv": "\n".join(maps),
        }
        for path, text in tables.items():
            delivery.put(path, text.encode())
            files.append(file_entry(path, text.encode()))
        entries.append({"plate": plate, "plate_map": f"platemaps/{plate}.csv", "load_data": f"load_data/{plate}.csv",
                        "sites_per_well": sites, "files": files})  # fmt: skip
    delivery.manifest = {
        "schema_version": 1, "source": source, "batch": batch, "created_at": "2026-01-01T00:00:00Z",
        "instrument": {"name": "scope", "modality": "widefield", "pixel_size_um": 0.6, "bit_depth": 16},
        "channels": list(STAINS), "plate_wells": 96, "plates": entries,
    }  # fmt: skip
    delivery.write()
    return delivery
