"""How alike are wells that should be alike: the wells of one treatment, and the untreated ones.

All functions take a table of wells (one row a well, see `coda.quality.plate_effects.well_medians`), because the sites
of one well are no independent observations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.quality.plate_effects import MIN_CONTROLS, robust_sd

MIN_PAIRS = 8
"""Pairs of wells with one treatment that are needed before their spread is stated."""


@dataclass(frozen=True)
class ReplicateSpread:
    """How much wells of one treatment differ, against any two treated wells of the plate.

    Attributes:
        ratio: Median over the statistics of (median difference within a treatment) / (median difference between
            treatments), 0 or more: near 0 the treatment decides, at 1 it tells nothing. NaN with too few replicates.
        pairs: Pairs of wells of one treatment behind it.
    """

    ratio: float
    pairs: int


def replicate_spread(wells: pd.DataFrame, statistics: Sequence[str]) -> ReplicateSpread:
    """Compare the wells of one treatment with those of others on one plate; controls are left out.

    Args:
        wells: Table of wells with ``Metadata_Treatment``, ``Metadata_pert_type`` and the statistics.
        statistics: Columns that are compared; those that do not vary are left out.
    """
    treated = wells[wells["Metadata_pert_type"] == "trt"]
    names = pd.factorize(treated["Metadata_Treatment"])[0]
    first, second = np.triu_indices(len(names), 1)
    same = names[first] == names[second]
    pairs = int(same.sum())
    if pairs < MIN_PAIRS or pairs == len(same):
        return ReplicateSpread(float("nan"), pairs)
    ratios = []
    for name in statistics:
        values = treated[name].to_numpy(dtype=np.float64)
        apart = np.abs(values[first] - values[second])
        usual = float(np.nanmedian(apart[~same])) if np.isfinite(apart[~same]).any() else 0.0
        if usual > 0 and np.isfinite(apart[same]).any():
            ratios.append(float(np.nanmedian(apart[same])) / usual)
    return ReplicateSpread(float(np.median(ratios)) if ratios else float("nan"), pairs)


def largest_cv(wells: pd.DataFrame, statistics: Sequence[str]) -> tuple[float, str]:
    """Return the largest robust coefficient of variation among negative-control wells, and its statistic.

    The coefficient is the robust standard deviation over the size of the median; (NaN, '') with too few wells.

    Args:
        wells: Table of wells with ``Metadata_pert_type`` and the statistics.
        statistics: Columns that are compared; a median of 0 is left out.
    """
    controls = wells[wells["Metadata_pert_type"] == "negcon"]
    largest, which = float("nan"), ""
    for name in statistics:
        values: NDArray[np.float64] = controls[name].dropna().to_numpy(dtype=np.float64)
        middle = abs(float(np.median(values))) if len(values) >= MIN_CONTROLS else 0.0
        if middle > 0 and not robust_sd(values) / middle <= largest:
            largest, which = robust_sd(values) / middle, name
    return largest, which
