"""Image statistics of a batch by stain, for the metrics and the report."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from coda.quality.stats import channel_of

STATISTICS: Mapping[str, str] = {
    "p50": "median brightness (grey values)",
    "p95": "bright structures (95th percentile, grey values)",
    "near_black": "share of near-black pixels",
    "focus": "focus (slope of the power spectrum; lower is more blurred)",
    "saturation": "share of saturated pixels",
}
"""Statistic -> what it says; the same names label `coda_acquisition_value`."""


def medians(index: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return the median over fields of each statistic, by (stain, statistic).

    Args:
        index: Field index with ``QC_<statistic>_<stain>`` columns; others are ignored.
    """
    found = {}
    for column in index.columns:
        statistic, channel = channel_of(str(column)) or ("", "")
        if statistic not in STATISTICS:
            continue
        values = index[column].to_numpy(dtype=np.float64)
        values = values[np.isfinite(values)]
        if len(values):
            found[channel, statistic] = float(np.median(values))
    return found
