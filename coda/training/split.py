"""What is held out from all training: last batches of a source, its last plates, or some wells (paper section 4)."""

import hashlib
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.config.params import Split
from coda.errors import ConfigError, Problem

HeldOutBy = Literal["batch", "plate", "well"]

COUNT = "split.validation_batches"

ONE_WELL_IN = 5
"""Wells of which one is held out, where wells are."""


def batch_names(table: pd.DataFrame) -> NDArray[np.str_]:
    """Return ``source/batch`` of every field."""
    return (table["Metadata_Source"] + "/" + table["Metadata_Batch"]).to_numpy(str)


def group_names(table: pd.DataFrame, by: str) -> NDArray[np.str_]:
    """Return ``source/batch`` (by='batch'), ``source/batch/plate`` or ``source/batch/plate/well`` of every field."""
    names = table["Metadata_Source"] + "/" + table["Metadata_Batch"]
    if by in ("plate", "well"):
        names = names + "/" + table["Metadata_Plate"]
    return (names + "/" + table["Metadata_Well"] if by == "well" else names).to_numpy(str)


def held_out(table: pd.DataFrame, count: int, by: HeldOutBy = "batch") -> NDArray[np.bool_]:
    """Return which fields are held out of each source (``split.validation_batches`` and ``split.by``).

    A batch, not a plate, is held out where there are several: plates of one batch share what the method must learn to
    ignore, and holding out one of them, as the released code does, flatters the score; wells of one plate share more.

    Args:
        table: Field index.
        count: Batches or plates to hold out of each source, the last by name.
        by: 'batch', 'plate', or 'well' for one well in `ONE_WELL_IN`, drawn by its name.

    Raises:
        ConfigError: A source has too little to train on what is left; all such sources together.
    """
    names = group_names(table, by)
    sources = table["Metadata_Source"].to_numpy(str)
    mask = np.zeros(len(table), dtype=bool)
    problems = []
    for source in np.unique(sources):
        own = np.unique(names[sources == source])
        if by == "well":
            drawn = sorted(own.tolist(), key=lambda name: hashlib.sha256(name.encode()).digest())
            chosen, expected = drawn[: max(1, len(own) // ONE_WELL_IN)], "at least 2"
        else:
            chosen, expected = own[-count:].tolist(), f"more than {count}"
        if len(chosen) == len(own):
            found, remedy = f"{len(own)} {_many(by)}", _instead(table[sources == source], count, by)
            problems.append(Problem(f"source {source}", found, expected, remedy))
        mask |= np.isin(names, chosen)
    if problems:
        raise ConfigError(f"There are too few {_many(by)} to hold any out.", problems)
    return mask


def held_out_fields(table: pd.DataFrame, split: Split) -> NDArray[np.bool_]:
    """Return which fields the parameters hold out from all training; see `held_out`."""
    return held_out(table, split.validation_batches, split.by)


def _many(by: HeldOutBy) -> str:
    return {"batch": "batch(es)", "plate": "plate(s)", "well": "well(s)"}[by]


def _instead(table: pd.DataFrame, count: int, by: HeldOutBy) -> str:
    """Say what can be held out of a source instead, as it can be typed."""
    lower = f"lower {COUNT}, " if count > 1 and by != "well" else ""
    finer = [
        other
        for other, least in (("plate", count + 1), ("well", 2))
        if by in ("batch", "plate") and other != by and len(np.unique(group_names(table, other))) >= least
    ]
    easier = f"set split.by={finer[0]}, an easier test, or " if finer else ""
    text = f"{lower}{easier}deliver more {_many(by)}."
    return text[0].upper() + text[1:]
