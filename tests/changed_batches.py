"""Fields of some batches with what the comparison with earlier ones reads of them, and a comparison made of these."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from coda.adaptation.changed import what_changed
from coda.contracts import STAINS
from coda.contracts.changed import WhatChanged
from coda.plates.layout import well_name
from coda.quality.stats import STATISTICS

TREATMENTS = ("DMSO", *(f"CPD-{k}@5" for k in range(7)))


def folder(source, batch, instrument="Opera Phenix"):
    """What is asked of a batch folder: its name and its microscope."""
    manifest = SimpleNamespace(source=source, batch=batch, instrument=SimpleNamespace(name=instrument))
    return SimpleNamespace(manifest=manifest, batch_id=f"{source}/{batch}")


def fields(
    rng, batches, *, plates=2, wells=16, sites=2, dim=None, bad_plate=None, treatments=TREATMENTS, source="lab_b"
):
    """Return the rows, their quality statistics and embeddings; of the last batch a stain is dim, or a plate is bad."""
    rows, numbers, embedding = [], [], []
    for batch in batches:
        of_batch = rng.normal(0, 0.3, (len(STAINS), len(STATISTICS)))
        for p in range(plates):
            of_plate = of_batch + rng.normal(0, 0.2, of_batch.shape)
            for w in range(wells):
                treatment = treatments[w % len(treatments)]
                for site in range(sites):
                    x = of_plate + rng.normal(size=of_batch.shape)
                    if batch == batches[-1] and dim is not None:
                        x[STAINS.index(dim)] -= 3
                    if batch == batches[-1] and p == bad_plate:
                        x[:, STATISTICS.index("focus")] -= 6
                    rows.append((source, batch, f"{batch}_p{p}", well_name(w // 8 + 1, w % 8 + 1), site, treatment))
                    numbers.append(1000 + 50 * x.reshape(-1))
                    embedding.append(rng.normal(size=24))
    names = ("Source", "Batch", "Plate", "Well", "Site", "Treatment")
    table = pd.DataFrame(rows, columns=[f"Metadata_{name}" for name in names])
    columns = [f"QC_{statistic}_{stain}" for stain in STAINS for statistic in STATISTICS]
    return table, pd.DataFrame(np.array(numbers), columns=columns), np.array(embedding, dtype=np.float32)


def compared(seed=0, earlier=4, source="lab_b", batch="b9", **story) -> WhatChanged:
    """Return a batch against so many earlier ones."""
    batches = [*(f"b{k}" for k in range(earlier)), batch]
    made = fields(np.random.default_rng(seed), batches, source=source, **story)
    told = what_changed(folder(source, batch), [folder(source, name) for name in batches[:-1]], *made)
    return told.model_copy(update={"channels": STAINS})
