"""Which batches are held out: the last ones of a source, by name, from all training alike (paper section 4)."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.errors import ConfigError, Problem


def batch_names(table: pd.DataFrame) -> NDArray[np.str_]:
    """Return ``source/batch`` of every field."""
    return (table["Metadata_Source"] + "/" + table["Metadata_Batch"]).to_numpy(str)


def group_names(table: pd.DataFrame, by: str) -> NDArray[np.str_]:
    """Return ``source/batch`` (by='batch') or ``source/batch/plate`` (by='plate') of every field."""
    names = table["Metadata_Source"] + "/" + table["Metadata_Batch"]
    return (names + "/" + table["Metadata_Plate"] if by == "plate" else names).to_numpy(str)


def held_out(table: pd.DataFrame, validation_batches: int) -> NDArray[np.bool_]:
    """Return which fields lie in the held-out batches of their source.

    A batch, not a plate, is held out: plates of one batch share what the method must learn to ignore, and holding out
    one of them, as the released code does, flatters the score.

    Args:
        table: Field index.
        validation_batches: Batches to hold out of each source, the last by name.

    Raises:
        ConfigError: A source has too few batches to train on what is left.
    """
    names = batch_names(table)
    sources = table["Metadata_Source"].to_numpy(str)
    mask = np.zeros(len(table), dtype=bool)
    problems = []
    for source in np.unique(sources):
        batches = np.unique(names[sources == source])
        if len(batches) <= validation_batches:
            found, expected = f"{len(batches)} batch(es)", f"more than {validation_batches}"
            remedy = "Deliver more batches, or lower split.validation_batches."
            problems.append(Problem(f"source {source}", found, expected, remedy))
        mask |= np.isin(names, batches[len(batches) - validation_batches :])
    if problems:
        raise ConfigError("There are too few batches to hold any out.", problems)
    return mask
