"""Comparison with earlier accepted plates of the same source and instrument.

The statistics compared are those that separated hard from easy batches in a public JUMP study (near-black share, upper
quantiles, dynamic range, correlations between stains), not mean intensity or sharpness alone. A plate's value is the
median over its fields; the limit is the history's median +- k MAD over plates. Differences are warnings: an input that
changed (drift) is not a model that got worse.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from coda.quality.stats import QC_PREFIX, pair_name
from coda.quality.suite import History

COLUMNS = ("plate", "stain", "statistic", "value", "usual", "mad", "distance_mads", "history_plates")


def plates_of_instrument(history: Sequence[pd.DataFrame], instrument: str) -> pd.DataFrame:
    """Return the fields of all accepted plates of one instrument, from the field indexes of earlier batches."""
    same = [index[index["Metadata_Instrument"] == instrument] for index in history]
    same = [index for index in same if len(index)]
    return pd.concat(same, ignore_index=True) if same else pd.DataFrame()


def count_plates(fields: pd.DataFrame) -> int:
    """Return the number of plates in a field index; a plate name may come again in another batch."""
    return len(fields[["Metadata_Batch", "Metadata_Plate"]].drop_duplicates()) if len(fields) else 0


def history_table(
    fields: pd.DataFrame, earlier: pd.DataFrame, channels: tuple[str, ...], rules: History, min_plates: int
) -> pd.DataFrame:
    """Return one row a plate and statistic, with its distance from history in MADs.

    Args:
        fields: Field index of the new batch.
        earlier: Field index of accepted plates, see `plates_of_instrument`.
        channels: Stains with statistics.
        rules: What is compared, and how small a MAD may be.
        min_plates: With fewer earlier plates nothing is compared and the table is empty.

    Returns:
        Columns `COLUMNS`; ``stain`` is 'DNA-ER' for a correlation.
    """
    count = count_plates(earlier)
    if count < min_plates or len(fields) == 0:
        return pd.DataFrame(columns=list(COLUMNS))
    chosen = _columns(channels, rules)
    shared = [name for name in chosen if name in fields.columns and name in earlier.columns]
    new = fields.groupby("Metadata_Plate", observed=True)[shared].median()
    past = earlier.groupby(["Metadata_Batch", "Metadata_Plate"], observed=True)[shared].median()
    usual = past.median()
    mad = (past - usual).abs().median()
    floor = (rules.min_relative_mad * usual.abs()).clip(lower=rules.min_absolute_mad)
    width = mad.where(mad > floor, floor).replace(0.0, np.nan)
    distance = (new - usual).abs() / width
    rows = [
        (str(plate), *chosen[name], new.loc[plate, name], usual[name], width[name], distance.loc[plate, name], count)
        for plate in new.index
        for name in shared
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _columns(channels: tuple[str, ...], rules: History) -> dict[str, tuple[str, str]]:
    names = {f"{QC_PREFIX}{name}_{stain}": (stain, name) for name in rules.statistics for stain in channels}
    if rules.correlations:
        pairs = combinations(channels, 2)
        names |= {f"{QC_PREFIX}{pair_name('corr', a, b)}": (f"{a}-{b}", "correlation") for a, b in pairs}
    return names
