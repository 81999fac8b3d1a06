"""Effects of the place on a plate, separation of controls, and tables in plate layout.

All functions take a field index (one row a field, ``Metadata_*`` and ``QC_*`` columns) of one plate and reduce it to
wells by the median over sites first: sites of one well are no independent observations.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.plates.layout import parse_well, row_name

MIN_WELLS = 8
"""Negative controls at the edge and inside, or treatments with wells at both, before an edge effect is stated."""

MIN_CONTROLS = 4
"""Wells of each kind of control needed before their separation or spread is stated."""

MIN_OF_A_LINE = 6
"""Wells a row or column must have to be compared with the others: the median of fewer says little."""

MIN_LINES = 3
"""Rows (or columns) needed before an effect is stated."""

MAD_TO_SD = 1.4826
"""A normal distribution's standard deviation in units of its median absolute deviation."""


def well_table(index: pd.DataFrame, statistic: str, shape: tuple[int, int] | None = None) -> pd.DataFrame:
    """Return one statistic in plate layout, for heat maps.

    Args:
        index: Field index of one plate.
        statistic: Column with or without the prefix ``QC_``, such as ``focus_DNA``.
        shape: Rows and columns of the plate format; by default the smallest rectangle from A01 that holds all wells.

    Raises:
        ValueError: A well name cannot be read.

    Returns:
        Median over the sites of each well, plate rows ('A', 'B', ...) x columns (1, 2, ...); NaN where no field is.
    """
    column = statistic if statistic in index.columns else f"QC_{statistic}"
    medians = index.groupby("Metadata_Well", observed=True)[column].median()
    places = [place for well in medians.index if (place := parse_well(str(well))) is not None]
    if len(places) < len(medians):
        message = f"well names such as 'B03' in Metadata_Well, not {sorted(map(str, medians.index))[:5]}"
        raise ValueError(message)
    rows = max((row for row, _ in places), default=-1) + 1
    columns = max((column for _, column in places), default=-1) + 1
    rows, columns = (max(rows, shape[0]), max(columns, shape[1])) if shape else (rows, columns)
    grid = np.full((rows, columns), np.nan)
    for (row, position), value in zip(places, medians.to_numpy(dtype=np.float64), strict=True):
        grid[row, position] = value
    return pd.DataFrame(grid, index=[row_name(row) for row in range(rows)], columns=range(1, columns + 1))


@dataclass(frozen=True)
class PlateEffects:
    """How much of a statistic follows the place on the plate.

    Attributes:
        row: Standard deviation between the rows' medians, less what chance alone would give, in robust standard
            deviations of the wells around their row's median: 0 is none, at 1 rows differ as much as wells of a row.
        column: The same for columns.

    Each is NaN where there are too few wells to say.
    """

    row: float
    column: float


def plate_effects(table: pd.DataFrame) -> PlateEffects:
    """Measure row and column effects of a `well_table`: plate layout, NaN where nothing was measured."""
    grid = table.to_numpy(dtype=np.float64)
    at = np.argwhere(np.isfinite(grid))
    values = grid[np.isfinite(grid)]
    return PlateEffects(row=_line_effect(at[:, 0], values), column=_line_effect(at[:, 1], values))


def edge_effect(wells: pd.DataFrame, statistic: str, shape: tuple[int, int]) -> float:
    """Measure how far the outermost wells of a plate are from inner wells that got the same.

    Wells of different treatments differ by what was done to them, and a random layout puts some of them at the edge; so
    only like is compared with like: the negative controls where there are enough of them, else the wells of each
    treatment that has some on both sides.

    Args:
        wells: One row a well, see `well_medians`.
        statistic: Column of the table.
        shape: Rows and columns of the plate format.

    Returns:
        The difference, edge less inside (the median over treatments), in standard deviations of wells that got the
        same; negative when the edge is lower. NaN with less than `MIN_WELLS` to compare.
    """
    known = wells[wells[statistic].notna()]
    places = [parse_well(str(well)) for well in known["Metadata_Well"]]
    on_edge = np.array([place is not None and _is_edge(place, shape) for place in places], dtype=bool)
    values = known[statistic].to_numpy(dtype=np.float64)
    control = (known["Metadata_pert_type"] == "negcon").to_numpy()
    if min((control & on_edge).sum(), (control & ~on_edge).sum()) >= MIN_WELLS:
        return _edge_of([(values[control & on_edge], values[control & ~on_edge])])
    alike = known.groupby("Metadata_Treatment", observed=True).indices.values()
    sides = [(values[rows][on_edge[rows]], values[rows][~on_edge[rows]]) for rows in alike]
    compared = [(edge, inner) for edge, inner in sides if len(edge) and len(inner)]
    return _edge_of(compared) if len(compared) >= MIN_WELLS else float("nan")


def _edge_of(sides: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> float:
    """Return the edge effect of treatments with these values at the edge and inside."""
    differences = [float(np.median(edge) - np.median(inner)) for edge, inner in sides]
    residuals = np.concatenate([values - np.median(values) for pair in sides for values in pair])
    free = len(residuals) - 2 * len(sides)
    if free >= MIN_WELLS:
        deviation = float(np.sqrt((residuals**2).sum() / free))
    else:  # one well on each side of most treatments: a difference of two wells varies by twice their variance
        deviation = float(np.std(differences, ddof=1) / np.sqrt(2))
    return _ratio(float(np.median(differences)), deviation)


def _is_edge(place: tuple[int, int], shape: tuple[int, int]) -> bool:
    return place[0] in {0, shape[0] - 1} or place[1] in {0, shape[1] - 1}


def _line_effect(line: NDArray[np.intp], values: NDArray[np.float64]) -> float:
    groups = [values[line == place] for place in np.unique(line)]
    groups = [group for group in groups if len(group) >= MIN_OF_A_LINE]
    if len(groups) < MIN_LINES:
        return float("nan")
    medians = np.array([np.median(group) for group in groups])
    residuals = np.concatenate([group - middle for group, middle in zip(groups, medians, strict=True)])
    deviation = robust_sd(residuals)
    # the median of n wells varies by pi / 2 / n of the wells' variance; a plain range would grow as lines get shorter
    spread = float((residuals**2).sum()) / (len(residuals) - len(groups))
    chance = float(np.mean([np.pi / 2 / len(group) for group in groups])) * spread
    return _ratio(float(np.sqrt(max(0.0, medians.var(ddof=1) - chance))), deviation)


def robust_sd(values: NDArray[np.float64]) -> float:
    """Return 1.4826 times the median absolute deviation from the median."""
    return MAD_TO_SD * float(np.median(np.abs(values - np.median(values))))


def _ratio(difference: float, deviation: float) -> float:
    if deviation > 0:
        return difference / deviation
    return 0.0 if difference == 0 else float("nan")


def well_medians(fields: pd.DataFrame) -> pd.DataFrame:
    """Return one row a well of one plate: kind and treatment of the well, and every ``QC_`` column's median over sites.

    Args:
        fields: Field index of one plate.
    """
    names = [name for name in fields.columns if name.startswith("QC_")]
    groups = fields.groupby("Metadata_Well", observed=True)
    kinds = groups[["Metadata_pert_type", "Metadata_Treatment"]].first()
    return pd.concat([kinds, groups[names].median()], axis=1).reset_index()


@dataclass(frozen=True)
class ControlSeparation:
    """How well one statistic separates two kinds of control wells.

    Attributes:
        robust_z_prime: 1 - 3 (sd1 + sd2) / abs(median1 - median2), with robust deviations (Zhang et al. 1999, robust
            form): 1 is perfect, above 0.5 excellent, below 0 the bands overlap.
        ssmd: (median1 - median2) / sqrt(sd1**2 + sd2**2), robust form of Zhang 2007; beyond 3 in size is strong.
        positive_wells: Positive controls behind the numbers.
        negative_wells: Negative controls behind the numbers.
    """

    robust_z_prime: float
    ssmd: float
    positive_wells: int
    negative_wells: int


def control_separation(index: pd.DataFrame, statistic: str, min_wells: int = MIN_CONTROLS) -> ControlSeparation:
    """Compare positive with negative control wells of one plate.

    Args:
        index: Field index of one plate with ``Metadata_pert_type``, or its `well_medians`.
        statistic: Column with or without the prefix ``QC_``.
        min_wells: Wells of each kind needed; with fewer both numbers are NaN.
    """
    column = statistic if statistic in index.columns else f"QC_{statistic}"
    positive = _of_kind(index, column, "poscon")
    negative = _of_kind(index, column, "negcon")
    z_prime = ssmd = float("nan")
    if min(len(positive), len(negative)) >= min_wells:
        difference = float(np.median(positive) - np.median(negative))
        spread = robust_sd(positive), robust_sd(negative)
        if difference != 0:
            z_prime = 1 - 3 * sum(spread) / abs(difference)
        ssmd = _ratio(difference, float(np.hypot(*spread)))
    return ControlSeparation(z_prime, ssmd, len(positive), len(negative))


def best_separation(wells: pd.DataFrame, statistics: Iterable[str]) -> tuple[str, ControlSeparation | None]:
    """Return the statistic that separates the controls best, and how well; ('', None) when none can be stated.

    The best has the largest SSMD in size.

    Args:
        wells: Table of wells, see `well_medians`.
        statistics: Columns to choose among.
    """
    found = {name: control_separation(wells, name) for name in statistics}
    stated = {name: item for name, item in found.items() if np.isfinite(item.ssmd)}
    if not stated:
        return "", None
    best = max(stated, key=lambda name: abs(stated[name].ssmd))
    return best, stated[best]


def _of_kind(index: pd.DataFrame, column: str, kind: str) -> NDArray[np.float64]:
    chosen = index[index["Metadata_pert_type"] == kind]
    return chosen.groupby("Metadata_Well", observed=True)[column].median().dropna().to_numpy(dtype=np.float64)
