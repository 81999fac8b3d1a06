"""Quality statistics in plate layout: uneven staining, edge effects and failed rows are seen at once."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.monitoring.report.pictures import Picture, figure, from_figure, style
from coda.plates.layout import FORMATS, parse_well, row_name

WANTED = (
    ("cells_DNA", "Nuclei in a field"),
    ("focus_DNA", "Focus of DNA (lower is more blurred)"),
    ("p95_AGP", "Brightness of AGP (95th percentile, grey values)"),
    ("p50_Mito", "Brightness of Mito (median, grey values)"),
)
"""Statistics that are drawn, with their words."""

FALLBACK = ("p50", "focus", "p95")
MOST = 4


def chosen_statistics(index: pd.DataFrame) -> list[tuple[str, str]]:
    """Return (column, words) of the statistics to draw: the wanted ones, or others where the stains are missing."""
    found = [(f"QC_{name}", words) for name, words in WANTED if f"QC_{name}" in index]
    others = [str(name) for name in index.columns if str(name).split("_")[:1] == ["QC"] and str(name).count("_") == 2]
    known = {column for column, _ in found}
    for column in sorted(others, key=lambda name: (name.split("_")[1] not in FALLBACK, name)):
        if len(found) >= MOST or column.split("_")[1] not in FALLBACK:
            break
        if column not in known:
            found.append((column, f"{column.split('_')[1]} of {column.split('_')[2]}"))
    return [(column, words) for column, words in found if np.isfinite(index[column].to_numpy(dtype=float)).any()][:MOST]


def plate_matrix(rows: pd.DataFrame, column: str, wells: int) -> NDArray[np.float64]:
    """Return the mean of a column over each well's fields in plate layout, NaN where there is none.

    Args:
        rows: Rows of one plate with ``Metadata_Well``.
        column: The column.
        wells: Wells of the plate format.

    Returns:
        Shape (rows, columns) of the format.
    """
    matrix = np.full(FORMATS[wells], np.nan)
    for well, value in rows.groupby("Metadata_Well")[column].mean().items():
        place = parse_well(str(well))
        if place is not None and place[0] < matrix.shape[0] and place[1] < matrix.shape[1]:
            matrix[place] = value
    return matrix


def draw_heat_maps(index: pd.DataFrame, plates: Sequence[str], wells: int) -> list[tuple[str, Picture]]:
    """Draw each chosen statistic for the plates side by side, with one colour scale for all plates of the batch.

    Args:
        index: Field index of one batch.
        plates: Plates to draw, in order.
        wells: Wells of the plate format.
    """
    return [
        (words, _draw(index, column, words, plates, wells))
        for column, words in (chosen_statistics(index) if plates and len(index) else [])
    ]


def _draw(index: pd.DataFrame, column: str, words: str, plates: Sequence[str], wells: int) -> Picture:
    by_plate = {str(plate): rows for plate, rows in index.groupby("Metadata_Plate")}
    empty = index.iloc[:0]
    maps = [plate_matrix(by_plate.get(plate, empty), column, wells) for plate in plates]
    seen = np.concatenate([matrix[np.isfinite(matrix)] for matrix in maps])
    low, high = (float(value) for value in np.percentile(seen, [1, 99])) if len(seen) else (0.0, 1.0)
    across = min(len(plates), 4)
    down = -(-len(plates) // across)
    n_rows, n_columns = FORMATS[wells]
    side = min(9.0 / across, 2.9)  # one plate must not fill the page
    with style():
        drawn = figure(across * side + 0.6, down * (side * n_rows / n_columns + 0.45) + 0.1)
        axes = np.atleast_1d(drawn.subplots(down, across, squeeze=False)).ravel()
        shown = None
        for axis, plate, matrix in zip(axes, plates, maps, strict=False):
            shown = axis.imshow(matrix, vmin=low, vmax=max(high, low + 1e-9), cmap="viridis", interpolation="nearest")
            axis.set_title(plate)
            step = 1 if n_rows <= 8 else 4
            axis.set_xticks(range(0, n_columns, step * 2 - 1), [str(k + 1) for k in range(0, n_columns, step * 2 - 1)])
            axis.set_yticks(range(0, n_rows, step), [row_name(k) for k in range(0, n_rows, step)])
            axis.tick_params(length=0, labelsize=7)
            axis.set_facecolor("#eef0f3")
            axis.spines[:].set_visible(False)
        for axis in axes[len(plates) :]:
            axis.set_axis_off()
        if shown is not None:
            drawn.colorbar(shown, ax=list(axes), fraction=0.025, pad=0.01)
        means = ", ".join(
            f"{plate} {np.nanmean(m):.3g}" for plate, m in zip(plates, maps, strict=True) if len(m[np.isfinite(m)])
        )
        return from_figure(drawn, f"{words} in plate layout; mean by plate: {means}")
