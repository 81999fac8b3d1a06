"""The public bucket with the paper's six sources, small: 20 batches, tables and names of all their generations."""

import gzip
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from batches import field, tiff
from jump_trees import packed

from coda.contracts import STAINS

BUCKET = "cellpainting-gallery"
PREFIX = "cpg0016-jump"
NUMBERS = {"DNA": 1, "ER": 2, "RNA": 3, "AGP": 4, "Mito": 5}
WELLS = {"A01": "", "A02": "", "B01": "BRD-1", "B02": "BRD-2", "C01": "BRD-3", "C02": "BRD-4"}
IDS = {"": "JCP2022_033924", **{f"BRD-{n}": f"JCP2022_00000{n}" for n in range(1, 5)}}
NAMES = {"": "DMSO", "BRD-1": "one", "BRD-2": "two", "BRD-3": "three", "BRD-4": "four"}
SHAPE = (64, 64)


def phenix(_, well, site, stain):
    return f"r{ord(well[0]) - 64:02d}c{well[1:]}f{site:02d}p01-ch{NUMBERS[stain]}sk1fk1fl1.tiff"


def cellvoyager(folder, well, site, stain):
    return f"{folder}_{well}_T0001F{site + 1:03d}L01A0{NUMBERS[stain]}Z01C{NUMBERS[stain]:02d}.tif"


def imagexpress(_, well, site, stain):
    return f"HTS_{well}_s{site}_w{NUMBERS[stain]}3EFC51B3-6F57-4273-AFE3-BAA0781C8ACF.tif"


HARMONY = "{}__2022-04-29T01_02_16-Measurement"

SOURCES = {
    # batches, microscope, modality, names of files, folder of a plate, kind of tables, generation, illum, first site
    "source_3": (5, "Opera Phenix", "Widefield", phenix, HARMONY + " 1/Images", "parquet", "old", True, 1),
    "source_5": (4, "CV8000", "Confocal", cellvoyager, "P01_{}", "csv", "new", False, 1),
    "source_8": (3, "ImageXpress", "Confocal", imagexpress, "{}/Images", "csv.gz", "new", True, 1),
    "source_11": (3, "Operetta", "Widefield", phenix, HARMONY + "1/Images", "csv.gz", "old", False, 1),
    "source_7": (3, "CV7000", "Confocal", cellvoyager, "{}", "parquet", "old", False, 0),
    "source_10": (2, "CV8000", "Confocal", cellvoyager, "Dest210531-{}", "csv", "new", False, 1),
}  # fmt: skip


def batches_of(source):
    return [f"{source[7:]}_Run{n}" for n in range(1, SOURCES[source][0] + 1)]


def fill(store):
    """Put the sources into a bucket; anybody may read."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda item: store.client.put_object(
            Bucket=store.bucket, Key=f"{PREFIX}/{item[0]}", Body=item[1], ACL="public-read"
        ), _objects()))  # fmt: skip


def _objects():
    every = [(source, batch) for source in SOURCES for batch in batches_of(source)]
    for seed, (source, batch) in enumerate(every):
        _, _, _, names, folder, kind, generation, illum, first = SOURCES[source]
        for plate, real in ((f"T2-{batch}", True), (f"C1-{batch}", False)):
            where, rows = folder.format(plate), []
            base = f"s3://{BUCKET}/{PREFIX}/{source}/images/{batch}"
            for number, well in enumerate(WELLS):
                row = {"Metadata_Source": source, "Metadata_Batch": batch, "Metadata_Plate": plate}
                row |= {"Metadata_Well": well, "Metadata_Site": str(first)}
                pictures = field(100 * seed + number, SHAPE) if real else {}
                for stain in STAINS:
                    name = names(where.partition("/")[0], well, first, stain)
                    if real:  # the screening plates have tables and no image: to read them is to fail
                        yield f"{source}/images/{batch}/images/{where}/{name}", tiff(pictures[stain])
                    row |= _named(stain, "Orig", f"{base}/images/{where}", name, generation, slash="/")
                    if illum:
                        given = f"{plate}_Illum{stain}.npy"
                        row |= _named(stain, "Illum", f"{base}/illum/{plate}", given, generation, slash="")
                rows.append(row)
            stem = "load_data_with_illum" if illum else "load_data"
            table = packed(pd.DataFrame(rows), kind)
            yield f"{source}/workspace/load_data_csv/{batch}/{plate}/{stem}.{kind}", table
            for stain in STAINS if illum and real else ():
                buffer = io.BytesIO()
                np.save(buffer, np.full(SHAPE, 1.2))
                yield f"{source}/images/{batch}/illum/{plate}/{plate}_Illum{stain}.npy", buffer.getvalue()


def _named(stain, kind, folder, name, generation, *, slash):
    if generation == "new":
        return {f"URL_{kind}{stain}": f"{folder}/{name}"}
    return {f"FileName_{kind}{stain}": name, f"PathName_{kind}{stain}": f"{folder}{slash}"}


def write_tables(folder):
    """Write what a user has beside the bucket: JUMP's tables, the map of JUMP-Target-2, and annotations."""
    plates, wells, scopes = [], [], []
    for source, (_, scope, modality, *_rest) in SOURCES.items():
        scopes.append((source, scope, modality, "1.0", "1", "0.6"))
        for batch in batches_of(source):
            plates += [(source, batch, f"T2-{batch}", "TARGET2"), (source, batch, f"C1-{batch}", "COMPOUND")]
            held = [] if source == "source_7" else [(f"T2-{batch}", 0), (f"C1-{batch}", 1)]  # as in the real table
            for plate, shift in held:
                turned = [*list(WELLS.values())[shift:], *list(WELLS.values())[:shift]]
                wells += [(source, plate, well, IDS[sample]) for well, sample in zip(WELLS, turned, strict=True)]
    metadata = folder / "datasets" / "metadata"
    metadata.mkdir(parents=True)
    tables = {
        "plate.csv.gz": ("Metadata_Source Metadata_Batch Metadata_Plate Metadata_PlateType", plates),
        "well.csv.gz": ("Metadata_Source Metadata_Plate Metadata_Well Metadata_JCP2022", wells),
        "perturbation_control.csv": ("Metadata_JCP2022 Metadata_pert_type Metadata_Name Metadata_modality",
                                     [("JCP2022_033924", "negcon", "DMSO", "compound")]),
        "microscope_config.csv": ("Metadata_Source Metadata_Microscope_Name Metadata_Widefield_vs_Confocal "
                                  "Metadata_Objective_NA Metadata_Sites_Per_Well Metadata_Pixel_Size_Microns", scopes),
    }  # fmt: skip
    for name, (header, rows) in tables.items():
        text = pd.DataFrame(rows, columns=header.split()).to_csv(index=False).encode()
        (metadata / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    layout = pd.DataFrame(WELLS.items(), columns=["well_position", "broad_sample"])
    layout.to_csv(folder / "JUMP-Target-2_compound_platemap.txt", sep="\t", index=False)
    samples = [(f"BRD-{n}", f"KEY{n}", NAMES[f"BRD-{n}"], "") for n in range(1, 5)]
    samples.append(("BRD-0", "KEY0", "DMSO", "negcon"))
    columns = ["broad_sample", "InChIKey", "pert_iname", "control_type"]
    pd.DataFrame(samples, columns=columns).to_csv(folder / "JUMP-Target-2_compound_metadata.tsv", sep="\t", index=False)
    moas = {"one": "a inhibitor", "two": "a inhibitor", "three": "b agonist", "four": "b agonist"}
    lines = [f"{name}\t{moa}" for name, moa in moas.items()]
    (folder / "annotations.txt").write_text("\n".join(["pert_iname\tmoa", *lines]) + "\n")
