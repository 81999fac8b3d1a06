"""A source of the public Cell Painting gallery, small: tables, images without pixels, illumination functions."""

import gzip
import io

import numpy as np
import pandas as pd
from instrument_trees import put

from coda.contracts import STAINS

BUCKET = "s3://cellpainting-gallery/cpg0016-jump/source_4"
NUMBERS = {"DNA": 5, "ER": 4, "RNA": 3, "AGP": 2, "Mito": 1}


def npy(value=1.0):
    buffer = io.BytesIO()
    np.save(buffer, np.full((4, 4), value))
    return buffer.getvalue()


def rows(plate, folder, batch, *, generation, stains=STAINS, sites=(1, 2), illum=None, names=None):
    """Return a load_data table as the public ones are."""
    base, table = f"{BUCKET}/images/{batch}", []
    for well in ("A01", "A02"):
        for site in sites:
            row = {"Metadata_Source": "source_4", "Metadata_Batch": batch, "Metadata_Plate": plate}
            row |= {"Metadata_Well": well, "Metadata_Site": str(site)}
            for stain in stains:
                name = (names or phenix)(plate, well, site, stain)
                if generation == "old":
                    row |= {f"FileName_Orig{stain}": name, f"PathName_Orig{stain}": f"{base}/images/{folder}/Images/"}
                else:
                    row[f"URL_Orig{stain}"] = f"{base}/images/{folder}/Images/{name}"
                if illum and generation == "old":
                    row |= {f"FileName_Illum{stain}": f"{illum}_Illum{stain}.npy"}
                    row |= {f"PathName_Illum{stain}": f"{base}/illum/{plate}"}
                elif illum:
                    row[f"URL_Illum{stain}"] = f"{base}/illum/{plate}/{illum}_Illum{stain}.npy"
            table.append(row)
    return pd.DataFrame(table)


def phenix(_, well, site, stain):
    return f"r01c{well[1:]}f{site:02d}p01-ch{NUMBERS.get(stain, 4)}sk1fk1fl1.tiff"


def packed(table, kind):
    if kind == "parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer)
        return buffer.getvalue()
    text = table.to_csv(index=False).encode()
    return gzip.compress(text) if kind == "csv.gz" else text


def source(folder, plates, *, batch="B1", kind="csv", generation="new", illum=True, tables=True, **options):
    """Write a source: plate -> folder of its images."""
    files = {}
    for plate, images in plates.items():
        table = rows(plate, images, batch, generation=generation, illum=plate if illum else None, **options)
        if tables is True or plate in tables:
            name = "load_data_with_illum" if illum else "load_data"
            files[f"workspace/load_data_csv/{batch}/{plate}/{name}.{kind}"] = packed(table, kind)
        for column in [name for name in table if name.startswith(("URL_Orig", "FileName_Orig"))]:
            for value in table[column]:
                files[f"images/{batch}/images/{images}/Images/{value.rpartition('/')[2]}"] = b"x"
        if illum:
            files |= {f"images/{batch}/illum/{plate}/{plate}_Illum{stain}.npy": npy() for stain in STAINS}
    return put(folder, files)


PHENIX = {"BR00117035": "BR00117035__2021-05-02T16_02_51-Measurement1"}
