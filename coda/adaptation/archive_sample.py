"""Which archived fields an adaptation reads: whole wells, those with partners in the batch first, within a budget."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.training.randomness import derived_seed

WELL = ["Metadata_Source", "Metadata_Batch", "Metadata_Plate", "Metadata_Well"]


def sample_archive(table: pd.DataFrame, is_batch: NDArray[np.bool_], most: int, *, seed: int) -> NDArray[np.bool_]:
    """Choose fields: all of the batch, and of the archive at most so many.

    Archived wells are taken whole. First comes one well of every treatment that the batch has, too, then a second one
    of each, and so on; then wells of other treatments in the same way. Which well of a treatment comes first is drawn.

    Args:
        table: One row a field, with ``Metadata_Source``, ``_Batch``, ``_Plate``, ``_Well`` and ``_Treatment``.
        is_batch: Which fields belong to the batch, shape (fields,).
        most: Archived fields at most.
        seed: Seed of the draw.

    Returns:
        Which fields are read, shape (fields,).
    """
    archived = table[~is_batch]
    if len(archived) <= most:
        return np.ones(len(table), dtype=bool)
    wells = archived.groupby(WELL, sort=True, observed=True)["Metadata_Treatment"].agg(["first", "size"]).reset_index()
    wells["drawn"] = np.random.default_rng(derived_seed(seed, "archive", 0)).permutation(len(wells))
    wells["apart"] = ~wells["first"].isin(table.loc[is_batch, "Metadata_Treatment"].unique())
    wells["turn"] = wells.sort_values("drawn").groupby("first", dropna=False).cumcount()
    wells = wells.sort_values(["apart", "turn", "drawn"])
    taken = wells[wells["size"].cumsum() <= most]
    chosen = pd.MultiIndex.from_frame(archived[WELL]).isin(pd.MultiIndex.from_frame(taken[WELL]))
    keep = is_batch.copy()
    keep[np.flatnonzero(~is_batch)[chosen]] = True
    return keep
