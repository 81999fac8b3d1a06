"""Have the negative controls moved? Distances between groups of control wells in a model's features.

Controls are compared with controls: anything else would measure which compounds are on a plate (a plate of strong
compounds is no drift). Wells are the unit, not fields: fields of one well are no independent samples.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.evaluation.levels import well_features
from coda.evaluation.mmd import mmd

MIN_WELLS = 4
"""Control wells a group must have to be compared."""


def control_drift(features: NDArray[np.floating], fields: pd.DataFrame, newest: set[str]) -> dict[str, float]:
    """Return the squared maximum mean discrepancy between groups of negative-control wells.

    Args:
        features: Shape (fields, width).
        fields: Rows of the field index, in the order of the features.
        newest: ``source/batch`` of the batches the report is about; the others are the reference.

    Returns:
        ``mmd_batches``: newest batches against the reference ones. ``mmd_plates``: mean over the newest batches'
        plates of the distance to the other plates of the same batch. A name is left out where a group has too few
        control wells; an empty result means nothing can be compared.
    """
    controls = (fields["Metadata_pert_type"] == "negcon").to_numpy()
    if not controls.any():
        return {}
    wells, x = well_features(fields[controls].reset_index(drop=True), np.asarray(features, dtype=np.float64)[controls])
    batch = (wells["Metadata_Source"].astype(str) + "/" + wells["Metadata_Batch"].astype(str)).to_numpy(dtype=str)
    new = np.isin(batch, sorted(newest))
    found = {}
    if min(new.sum(), (~new).sum()) >= MIN_WELLS:
        found["mmd_batches"] = mmd(x[new], x[~new]).value
    plate = wells["Metadata_Plate"].to_numpy(dtype=str)
    distances = []
    for name in sorted(set(batch[new])):
        inside = batch == name
        for one in sorted(set(plate[inside])):
            here = inside & (plate == one)
            others = inside & (plate != one)
            if min(here.sum(), others.sum()) >= MIN_WELLS:
                distances.append(mmd(x[here], x[others]).value)
    if distances:
        found["mmd_plates"] = float(np.mean(distances))
    return found
