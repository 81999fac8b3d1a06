"""Plates that lie in a folder without a manifest, with one load_data table for all of them."""

import csv
import json
import shutil

from batches import deliver

from coda.plates.manifests.digests import KeptDigests
from coda.plates.manifests.draft import draft
from coda.plates.manifests.publish import publish
from coda.plates.readers.assemble import Identity
from coda.plates.readers.read_options import ReadOptions

IDENTITY = Identity(
    source="lab_a", batch="b1", instrument="scope", modality="widefield", pixel_size_um=0.6, plate_wells=96
)  # fmt: skip


def lay(folder, plates=2, **options):
    """Write plates as a producer would, and take away what only a manifest knows; returns the delivery."""
    delivery = deliver(folder, plates=plates, **options)
    tables = [folder / entry["load_data"] for entry in delivery.manifest["plates"]]
    lines = [table.read_text().splitlines() for table in tables]
    (folder / "all_load_data.csv").write_text("\n".join([lines[0][0], *(row for text in lines for row in text[1:])]))
    maps = [(folder / entry["plate_map"]).read_text().splitlines() for entry in delivery.manifest["plates"]]
    (folder.parent / "wells.csv").write_text("\n".join([maps[0][0], *(row for text in maps for row in text[1:])]))
    for name in ("load_data", "platemaps"):
        shutil.rmtree(folder / name)
    (folder / "manifest.json").unlink()
    return delivery


def drafted(place, folder, *, images_at=None, identity=IDENTITY, **options):
    identity = Identity(**{**identity.__dict__, "plate_map": folder.parent / "wells.csv"})
    return draft(place, "load_data", ReadOptions(**options), identity, images_at=images_at)


def published(made, place, out, work, *, replacing=False, workers=2):
    """Publish a draft; returns the manifest, whether it was written, and the progress told."""
    told = []
    with KeptDigests(work, place.where) as kept:
        manifest, written = publish(
            made, place, out, kept, workers=workers, progress=lambda *step: told.append(step), replacing=replacing
        )  # fmt: skip
    return manifest, written, told


def image_entries(manifest):
    """Return path -> (size, digest) of the images that a delivery's own manifest lists."""
    text = manifest if isinstance(manifest, dict) else json.loads(manifest.to_json())
    return {
        file["path"]: (file["size_bytes"], file["sha256"])
        for plate in text["plates"]
        for file in plate["files"]
        if file["path"].endswith(".tiff")
    }


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))
