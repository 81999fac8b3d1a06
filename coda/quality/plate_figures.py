"""What one number a plate can say: cells, effects of place, separation of controls, likeness of replicates.

These are the columns that the table ``plates`` of a suite adds to what is known from the tables of a delivery, and the
figures that the quality report keeps of every plate, whether a check failed on them or not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from coda.contracts.channels import STAINS
from coda.contracts.quality import PlateFigures
from coda.plates.layout import parse_well
from coda.quality.plate_effects import (
    best_separation,
    control_separation,
    edge_effect,
    plate_effects,
    well_medians,
    well_table,
)
from coda.quality.replicates import largest_cv, replicate_spread
from coda.quality.stats import CELLS, QC_PREFIX, cells_column

STATED = ("cells_", "p50_")
"""What the names of statistics begin with (and a channel follows) that effects of place and replicate spread look at,
and whose control separation is always stated: the number of nuclei, and the median grey value of each channel."""

UNKNOWN: dict[str, object] = {
    "cells_median": np.nan, "wells_sparse_share": np.nan,
    "edge_effect": np.nan, "edge_statistic": "", "row_effect": np.nan, "row_statistic": "",
    "column_effect": np.nan, "column_statistic": "",
    "control_statistic": "", "ssmd": np.nan, "ssmd_size": np.nan, "robust_z_prime": np.nan,
    **{
        f"{name}_{statistic}": np.nan
        for statistic in ("cells_DNA", *(f"p50_{stain}" for stain in STAINS))
        for name in ("ssmd", "robust_z_prime")
    },
    "replicate_spread": np.nan, "replicate_pairs": 0,
    "negcon_cv": np.nan, "negcon_statistic": "", "negcon_cells_cv": np.nan,
}  # fmt: skip
"""Columns of `plate_figures`, as they are where nothing can be said; other channels have `ssmd_p50_<channel>`, ..."""


def plate_figures(fields: pd.DataFrame, shape: tuple[int, int]) -> dict[str, object]:
    """Return the figures of one plate.

    Args:
        fields: Field index of the plate, with QC statistics.
        shape: Rows and columns of the plate format.

    Returns:
        The keys of `UNKNOWN`; a number is NaN, and a name '', where there are too few wells or no such stain. Of the
        effects of place the largest in size is given, with its statistic. Empty wells count nowhere, positive controls
        not in effects of place, for they differ on purpose.
    """
    figures = dict(UNKNOWN)
    filled = fields[(fields["Metadata_pert_type"] != "empty") & fields["Metadata_Well"].notna()]
    if len(filled) == 0:
        return figures
    wells = well_medians(filled)
    return figures | _cells(filled) | _place(filled, shape) | _controls(wells) | _replicates(wells)


def kept_figures(row: Mapping[Any, Any]) -> PlateFigures:
    """Return the figures of a row of the table ``plates`` as the quality report keeps them."""
    kept = {name: _kept(row[name]) for name in PlateFigures.model_fields if name in row}
    stated = {
        kind: {
            name: value
            for column in row
            if (name := str(column).removeprefix(f"{kind}_")) != column and name.startswith(STATED)
            if (value := _kept(row[column])) is not None
        }
        for kind in ("ssmd", "robust_z_prime")
    }
    return PlateFigures.model_validate(
        kept | {"ssmd_stated": stated["ssmd"], "robust_z_prime_stated": stated["robust_z_prime"]}
    )


def _kept(value: object) -> object:
    """Return a value as JSON can hold it: what is not known is None."""
    if isinstance(value, float | np.floating):
        return round(float(value), 6) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _beginning(table: pd.DataFrame, *starts: str) -> list[str]:
    """Return the columns of statistics whose names begin so, in the order of the beginnings."""
    return [str(name) for start in starts for name in table.columns if str(name).startswith(f"{QC_PREFIX}{start}")]


def _cells(filled: pd.DataFrame) -> dict[str, object]:
    column = cells_column(filled.columns)
    if column is None:
        return {}
    wells = filled.groupby("Metadata_Well", observed=True)[column].mean()
    usual = float(wells.median())
    return {"cells_median": usual, "wells_sparse_share": float((wells < max(0.2 * usual, 1.0)).mean())}


def _place(filled: pd.DataFrame, shape: tuple[int, int]) -> dict[str, object]:
    places = [parse_well(str(well)) for well in filled["Metadata_Well"].unique()]
    if any(place is None or place[0] >= shape[0] or place[1] >= shape[1] for place in places):
        return {}  # the plate map is that of another format, which has a check of its own
    compared = filled[filled["Metadata_pert_type"] != "poscon"]
    wells = well_medians(compared)
    largest: dict[str, object] = {}
    for column in _beginning(compared, *STATED):
        found = plate_effects(well_table(compared, column, shape))
        effects = {"row": found.row, "column": found.column, "edge": edge_effect(wells, column, shape)}
        for kind, effect in effects.items():
            if np.isfinite(effect) and not abs(effect) <= abs(float(str(largest.get(f"{kind}_effect", np.nan)))):
                largest |= {f"{kind}_effect": effect, f"{kind}_statistic": _bare(column)}
    return largest


def _controls(wells: pd.DataFrame) -> dict[str, object]:
    figures: dict[str, object] = {}
    for column in _beginning(wells, *STATED):
        found = control_separation(wells, column)
        figures |= {f"ssmd_{_bare(column)}": found.ssmd, f"robust_z_prime_{_bare(column)}": found.robust_z_prime}
    best, separation = best_separation(wells, _statistics(wells))
    if separation is not None:
        figures |= {
            "control_statistic": _bare(best),
            "ssmd": separation.ssmd,
            "ssmd_size": abs(separation.ssmd),
            "robust_z_prime": separation.robust_z_prime,
        }
    cv, statistic = largest_cv(wells, _beginning(wells, "mean_"))
    cells, _ = largest_cv(wells, _beginning(wells, CELLS))
    return figures | {"negcon_cv": cv, "negcon_statistic": _bare(statistic), "negcon_cells_cv": cells}


def _replicates(wells: pd.DataFrame) -> dict[str, object]:
    spread = replicate_spread(wells, _beginning(wells, *STATED))
    return {"replicate_spread": spread.ratio, "replicate_pairs": spread.pairs}


def _statistics(wells: pd.DataFrame) -> Sequence[str]:
    return [str(name) for name in wells.columns if str(name).startswith(QC_PREFIX)]


def _bare(column: str) -> str:
    return column.removeprefix(QC_PREFIX)
