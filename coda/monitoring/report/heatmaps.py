"""Quality statistics in plate layout: uneven staining, edge effects and failed rows are seen at once."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from coda.monitoring.report.data_uris import Picture, figure, from_figure, style
from coda.plates.layout import FORMATS, row_name
from coda.plates.plate_pictures import plate_matrix
from coda.quality.stats import CELLS, QC_PREFIX, cells_column, channel_of

WANTED = (
    ("p95_AGP", "Brightness of AGP (95th percentile, grey values)"),
    ("p50_Mito", "Brightness of Mito (median, grey values)"),
)
"""Statistics that are drawn beside those of the nuclei, with their words."""

FALLBACK = ("p50", "focus", "p95")
MOST = 4

_WIDTH_IN = 8.8
_BAR_IN = 0.75


def chosen_statistics(index: pd.DataFrame) -> list[tuple[str, str]]:
    """Return (column, words) of the statistics to draw: the wanted ones, or others where the stains are missing."""
    found = []
    cells = cells_column(index.columns)
    if cells is not None:
        nuclei = cells.removeprefix(f"{QC_PREFIX}{CELLS}")
        found = [(cells, "Nuclei in a field"), (f"QC_focus_{nuclei}", f"Focus of {nuclei} (lower is more blurred)")]
    found += [(f"QC_{name}", words) for name, words in WANTED]
    found = [(column, words) for column, words in found if column in index]
    known = {column for column, _ in found}
    read = {str(name): said for name in index.columns if (said := channel_of(str(name))) is not None}
    for column in sorted(read):
        statistic, channel = read[column]
        if len(found) < MOST and statistic in FALLBACK and column not in known:
            found.append((column, f"{statistic} of {channel}"))
    return [(column, words) for column, words in found if np.isfinite(index[column].to_numpy(dtype=float)).any()][:MOST]


def draw_heat_maps(index: pd.DataFrame, plates: Sequence[str], wells: int) -> list[tuple[str, Picture]]:
    """Draw each chosen statistic for the plates side by side, with one colour scale for all plates of the batch."""
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
    if high - low < 1e-6 * max(abs(low), 1e-6):  # one well, or equal wells: no scale could tell them apart
        low, high = low - 0.05 * max(abs(low), 1e-6), high + 0.05 * max(abs(high), 1e-6)
    canvas, corners = _side_by_side(maps)
    inch = _WIDTH_IN / max(canvas.shape[1], 4 * FORMATS[wells][1])  # one plate must not fill the page
    wide, tall = canvas.shape[1] * inch, canvas.shape[0] * inch
    with style():
        drawn = figure(wide + _BAR_IN, tall + 0.1, layout=None)
        size = drawn.get_size_inches()
        axis = drawn.add_axes((0.0, 0.0, wide / size[0], tall / size[1]))
        axis.set_axis_off()
        colours = mpl.colormaps["viridis"].with_extremes(bad=(0, 0, 0, 0))
        shown = axis.imshow(canvas, vmin=low, vmax=high, cmap=colours, interpolation="nearest")
        for plate, matrix, (top, left) in zip(plates, maps, corners, strict=True):
            _frame(axis, plate, matrix.shape, top, left)
        bar = drawn.add_axes(((wide + 0.08) / size[0], 0.12, 0.14 / size[0], 0.7))
        drawn.colorbar(shown, cax=bar).ax.tick_params(labelsize=8)
    means = [f"{plate} {np.nanmean(matrix):.3g}" for plate, matrix in zip(plates, maps, strict=True) if _known(matrix)]
    return from_figure(drawn, f"{words} in plate layout; mean by plate: {', '.join(means)}")


def _side_by_side(maps: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], list[tuple[int, int]]]:
    """Put plates into one matrix with room for their names; return it and each plate's upper left corner.

    One pair of axes for all plates instead of one for each draws ten times as fast.
    """
    rows, columns = maps[0].shape
    gap = max(2, columns // 6)
    across = min(len(maps), 4)
    canvas = np.full((-(-len(maps) // across) * (rows + gap), across * (columns + gap)), np.nan)
    corners = []
    for number, matrix in enumerate(maps):
        top, left = (number // across) * (rows + gap) + gap, (number % across) * (columns + gap) + gap // 2 + 1
        canvas[top : top + rows, left : left + columns] = matrix
        corners.append((top, left))
    return canvas, corners


def _frame(axis: Axes, plate: str, shape: tuple[int, ...], top: int, left: int) -> None:
    rows, columns = shape
    axis.add_patch(Rectangle((left - 0.5, top - 0.5), columns, rows, facecolor="#eef0f3", zorder=-1))
    middle = left + (columns - 1) / 2
    axis.text(middle, top - 0.7, plate, ha="center", va="bottom", fontsize=8.5)
    for row in (0, rows - 1):
        axis.text(left - 0.7, top + row, row_name(row), ha="right", va="center", fontsize=7)
    for column in (0, columns - 1):
        axis.text(left + column, top - 0.7, str(column + 1), ha="center", va="bottom", fontsize=7)


def _known(matrix: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(matrix).any())
