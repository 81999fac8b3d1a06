"""Tables of predictions: from fields to wells to compounds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.evaluation.predictions.stored_matrix import BLOCK_ROWS, Rows

PREFIX = "p_"
"""Probability columns are `p_<class>`."""

TREATED = ("trt", "poscon")
"""Well types with a compound; controls and empty wells are predicted too, but judge nothing."""

WELL = ["Metadata_Source", "Metadata_Batch", "Metadata_Plate", "Metadata_Well"]
COMPOUND = ["Metadata_Source", "Metadata_Batch", "Metadata_Compound"]


def classes_of(table: pd.DataFrame) -> tuple[str, ...]:
    """Return the class names of a prediction table, in the order of its columns."""
    return tuple(name.removeprefix(PREFIX) for name in table.columns if name.startswith(PREFIX))


def probabilities_of(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return the probabilities of a prediction table, shape (rows, classes)."""
    return table[[PREFIX + name for name in classes_of(table)]].to_numpy(dtype=np.float64)


def field_table(rows: pd.DataFrame, probabilities: NDArray[np.floating[Any]], classes: Sequence[str]) -> pd.DataFrame:
    """Return the field-level prediction table.

    Args:
        rows: Rows of the field index with ``image_id`` and `Metadata_*` columns.
        probabilities: Shape (fields, classes), rows as in `rows`.
        classes: Class names.
    """
    kept = [name for name in rows.columns if name == "image_id" or name.startswith("Metadata_")]
    table = rows[kept].reset_index(drop=True)
    columns = {PREFIX + name: np.asarray(probabilities[:, k], dtype=np.float32) for k, name in enumerate(classes)}
    return with_answer(pd.concat([table, pd.DataFrame(columns)], axis=1))


def well_table(fields: pd.DataFrame) -> pd.DataFrame:
    """Return one row a well: the mean probability over its fields, which is how sites are combined in the field."""
    return _mean_over(fields, WELL, "n_fields")


def compound_table(wells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a compound and batch: the mean probability over its wells; untreated wells are left out."""
    treated = wells[wells["Metadata_pert_type"].isin(TREATED)]
    per_well = ["Metadata_Plate", "Metadata_Well", "Metadata_Treatment", "Metadata_Dose_uM"]
    dropped = [name for name in [*per_well, "n_fields"] if name in treated]
    return _mean_over(treated.drop(columns=dropped), COMPOUND, "n_wells")


def with_answer(table: pd.DataFrame) -> pd.DataFrame:
    """Add `predicted` and `top_probability`, the answer for people, to a prediction table."""
    classes, p = np.asarray(classes_of(table), dtype=object), probabilities_of(table)
    best = p.argmax(axis=1) if len(p) else np.zeros(0, dtype=np.intp)
    top = p[np.arange(len(p)), best].astype(np.float32) if len(p) else np.zeros(0, dtype=np.float32)
    return table.assign(predicted=classes[best] if len(p) else [], top_probability=top)


def well_features(rows: pd.DataFrame, features: Rows) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Return well rows and the mean features of each well's fields, in the order of the well table.

    Args:
        rows: Rows of the field index.
        features: Shape (fields, width), in memory or in a file, of which some rows are read at a time.
    """
    keys = rows[WELL].astype(str).agg("/".join, axis=1)
    _, first, position = np.unique(keys.to_numpy(dtype=str), return_index=True, return_inverse=True)
    sums = np.zeros((len(first), features.shape[1]))
    position = position.reshape(-1)
    for start in range(0, len(features), BLOCK_ROWS):
        # row after row, as over all rows at once: the sums are the same to the last bit
        block = slice(start, start + BLOCK_ROWS)
        np.add.at(sums, position[block], np.asarray(features[block], dtype=np.float64))
    wells = rows.iloc[first].reset_index(drop=True)
    sums /= np.bincount(position)[:, None]
    return wells, sums


def _mean_over(table: pd.DataFrame, keys: list[str], counted: str) -> pd.DataFrame:
    # summed in a fixed order in float64: the same fields give the same bytes whatever order they arrive in
    order = [name for name in [*keys, "Metadata_Site", "Metadata_Plate", "Metadata_Well"] if name in table]
    table = table.sort_values(list(dict.fromkeys(order)), kind="stable")
    probabilities = [PREFIX + name for name in classes_of(table)]
    groups = table.groupby(keys, sort=True)
    facts = [
        name
        for name in table.columns
        if name.startswith("Metadata_") and name not in keys and name not in ("Metadata_Site", "Metadata_Image")
    ]
    means = table[probabilities].astype(np.float64).groupby([table[key] for key in keys], sort=True).mean()
    parts = [groups[facts].first(), groups.size().rename(counted), means.astype(np.float32)]
    return with_answer(pd.concat(parts, axis=1).reset_index())
