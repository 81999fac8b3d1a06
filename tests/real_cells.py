"""Real fields of cells, where they are at hand, and their quality statistics."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from PIL import Image

from coda.quality.stats import field_statistics


def table_of(fields: list[dict[str, np.ndarray]], bit_depth: int) -> pd.DataFrame:
    rows = [field_statistics(raw, bit_depth=bit_depth, nuclei="DNA") for raw in fields]
    return pd.DataFrame([{f"QC_{name}": value for name, value in row.items()} for row in rows])


def real_fields(folder: Path) -> Iterator[tuple[str, int, dict[str, np.ndarray]]]:
    jump = folder / "cpjump1_BR00117006"
    names = {"DNA": 5, "AGP": 2, "RNA": 3}
    yield "JUMP", 16, {s: tifffile.imread(jump / f"r01c01f01p01-ch{n}sk1fk1fl1.tiff") for s, n in names.items()}
    for plate in sorted((folder / "rxrx1" / "train").glob("*/*")):
        for site in (1, 2):
            paths = {s: plate / f"B02_s{site}_w{n}.png" for n, s in enumerate(("DNA", "ER", "AGP", "RNA", "Mito"), 1)}
            raw = {stain: np.asarray(Image.open(path)) for stain, path in paths.items() if path.is_file()}
            if "DNA" in raw:
                yield f"{plate.parent.name}/{plate.name}/{site}", 8, raw


def quarters(raw: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    half = next(iter(raw.values())).shape[0] // 2
    for row in (0, half):
        for column in (0, half):
            yield {stain: image[row : row + half, column : column + half] for stain, image in raw.items()}
