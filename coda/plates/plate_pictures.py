"""Pictures of an ingested plate: the plate as one sees it, some fields by stain, and heat maps in plate layout."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from coda.contracts.channels import Role, nuclei_of, tints_of
from coda.plates.layout import FORMATS, parse_well, row_name
from coda.plates.resample import resample
from coda.plates.store_reading import read_arrays
from coda.plates.store_source import RemoteStore
from coda.quality.stats import cells_column

HEAT_MAPS = {
    "p50": "median grey value",
    "p99": "bright grey value (99 %)",
    "contrast": "contrast",
    "snr": "signal to noise",
    "focus": "focus (power slope)",
    "foreground": "foreground share",
    "saturation": "saturated share",
}
"""Statistic of the field index (`QC_<statistic>_<stain>`) -> title."""

FROM_ZERO = ("saturation",)
"""Statistics whose colour scale begins at 0."""

PANEL_INCHES = {6: 2.2, 12: 2.2, 24: 2.4, 48: 2.6, 96: 2.9, 384: 3.6, 1536: 5.2}
"""Wells of a plate -> width of one heat map, so that a well stays visible."""

NO_WELL = "#dddddd"
"""Colour of a well without a field."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PlateToDraw:
    """What pictures of a plate are made from.

    Attributes:
        store: The plate store.
        rows: One row a stored field: ``Metadata_Well``, ``Metadata_Site``, ``channels``, ``array``, ``height``,
            ``width``, ``QC_*``; and ``Metadata_Treatment`` where it is known.
        wells: Wells of the plate format.
        name: Name of the plate, for file names.
        title: What the pictures are titled with.
        roles: Roles of the channels.
        colours: Colours of the channels, six hexadecimal digits.
    """

    store: Path | RemoteStore
    rows: pd.DataFrame
    wells: int
    name: str
    title: str
    roles: Mapping[str, Role]
    colours: Mapping[str, str]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the plate."""
        return FORMATS[self.wells]

    @property
    def channels(self) -> list[str]:
        """Stains along the first axis."""
        return str(self.rows["channels"].iloc[0]).split(",")


def draw_plate(plate: PlateToDraw, folder: Path) -> list[Path]:
    """Write the pictures of one plate and return their paths.

    Args:
        plate: The plate; it has at least one field.
        folder: Where the PNG files go: ``<plate>_wells.png`` (a colour thumbnail of each well in plate layout),
            ``<plate>_contact_sheet.png`` (some fields, each stain apart) and ``<plate>_heat_maps.png`` (a map in plate
            layout for each statistic of each stain; below them the nuclei and the number of stored fields).

    Raises:
        IntegrityError: The store is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "wells": _wells_figure(plate),
        "contact_sheet": _fields_figure(plate),
        "heat_maps": _heat_figure(plate),
    }
    paths = []
    for name, figure in figures.items():
        path = folder / f"{plate.name}_{name}.png"
        figure.savefig(path, dpi=110)
        paths.append(path)
    return paths


def colour(pixels: Pixels, tints: Mapping[str, tuple[float, float, float]]) -> Pixels:
    """Return one field (channels, height, width) as a colour picture (height, width, 3); tints in the same order."""
    mixed = np.tensordot(pixels.astype(np.float32), np.array(list(tints.values()), dtype=np.float32), axes=(0, 0))
    return np.asarray(np.clip(mixed, 0, 255), dtype=np.uint8)


def _read(plate: PlateToDraw, rows: pd.DataFrame) -> list[Pixels]:
    shapes = [
        (len(str(names).split(",")), int(height), int(width))
        for names, height, width in zip(rows["channels"], rows["height"], rows["width"], strict=True)
    ]
    return list(read_arrays(plate.store, rows["array"].tolist(), shapes))


def _shrunk(pixels: Pixels, side: int) -> Pixels:
    factor = min(1.0, side / max(pixels.shape[1:]))
    shape = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[2] * factor)))
    return np.stack([np.rint(resample(plane.astype(np.float32), shape)).astype(np.uint8) for plane in pixels])


def _wells_figure(plate: PlateToDraw) -> Figure:
    firsts = plate.rows.drop_duplicates("Metadata_Well")
    places = [parse_well(well) or (0, 0) for well in firsts["Metadata_Well"]]
    low = (min(place[0] for place in places), min(place[1] for place in places))
    high = (max(place[0] for place in places), max(place[1] for place in places))
    side = 384 if len(places) <= 4 else 128 if len(places) <= 120 else 64
    size = (high[0] - low[0] + 1, high[1] - low[1] + 1)
    canvas = np.full((size[0] * side, size[1] * side, 3), 30, dtype=np.uint8)
    tints = tints_of(plate.channels, plate.roles, plate.colours)
    for place, pixels in zip(places, _read(plate, firsts), strict=True):
        small = colour(_shrunk(pixels, side - 2), tints)
        top, left = (place[0] - low[0]) * side, (place[1] - low[1]) * side
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    width = min(14.0, max(2.0 + size[1] * side / 90, 6.5))  # the title must fit also over a single well
    height = min(14.0, 1.2 + (width - 1.0) * canvas.shape[0] / canvas.shape[1])
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(canvas)
    axes.set_xticks([(c + 0.5) * side for c in range(size[1])], [str(low[1] + c + 1) for c in range(size[1])])
    axes.set_yticks([(r + 0.5) * side for r in range(size[0])], [row_name(low[0] + r) for r in range(size[0])])
    axes.set_title(f"{plate.title}: first field of each well ({plate.wells}-well plate)", fontsize=10)
    return figure


def _fields_figure(plate: PlateToDraw) -> Figure:
    rows, channels = plate.rows, plate.channels
    chosen = rows.iloc[sorted({round(place) for place in np.linspace(0, len(rows) - 1, min(6, len(rows)))})]
    columns = len(channels) + 1
    tints = tints_of(channels, plate.roles, plate.colours)
    size = (0.4 + 2.3 * columns, 0.5 + 2.45 * len(chosen))
    figure = Figure(figsize=size)
    grid = figure.subplots(len(chosen), columns, squeeze=False)
    figure.subplots_adjust(
        left=0.45 / size[0], right=1 - 0.05 / size[0], bottom=0.05 / size[1], top=1 - 0.5 / size[1], wspace=0.06,
        hspace=0.1,
    )  # fmt: skip
    for line, pixels, (_, row) in zip(grid, _read(plate, chosen), chosen.iterrows(), strict=True):
        small = _shrunk(pixels, 300)
        for axes, stain, plane in zip(line, channels, small, strict=False):
            axes.imshow(plane, cmap="gray", vmin=0, vmax=255)
            axes.set_title(stain, fontsize=8)
            axes.spines[:].set(color=f"#{plate.colours[stain]}" if any(tints[stain]) else NO_WELL, linewidth=2)
        line[-1].imshow(colour(small, tints))
        line[-1].set_title("in colour", fontsize=8)
        label = f"{row['Metadata_Well']} site {row['Metadata_Site']}\n{row.get('Metadata_Treatment') or ''}"
        line[0].set_ylabel(label[:40], fontsize=7)
        for axes in line:
            axes.set_xticks([])
            axes.set_yticks([])
    figure.suptitle(f"{plate.title}: fields as stored", fontsize=10, y=1 - 0.12 / size[1])
    return figure


def _heat_figure(plate: PlateToDraw) -> Figure:
    rows, channels = plate.rows, plate.channels
    names = [name for name in HEAT_MAPS if f"QC_{name}_{channels[0]}" in rows.columns]
    width = PANEL_INCHES[plate.wells]
    height = width * plate.shape[0] / plate.shape[1] * 0.8 + 0.35
    size = (width * max(len(channels), 2), 0.6 + height * (len(names) + 1))
    # places are given, for matplotlib takes seconds to find them for so many maps
    figure = Figure(figsize=size)
    grid = figure.subplots(len(names) + 1, max(len(channels), 2), squeeze=False)
    edges = {"left": 0.25 / size[0], "right": 1 - 0.65 / size[0], "bottom": 0.2 / size[1], "top": 1 - 0.6 / size[1]}
    figure.subplots_adjust(**edges, wspace=0.34, hspace=0.28)
    for line, name in zip(grid, names, strict=False):
        for axes, stain in zip(line, channels, strict=False):
            values = plate_matrix(rows, f"QC_{name}_{stain}", plate.wells)
            _heat_map(figure, axes, values, f"{stain}: {HEAT_MAPS[name]}", from_zero=name in FROM_ZERO)
    stored = rows.groupby("Metadata_Well")["array"].transform("size")
    counts = plate_matrix(rows.assign(stored=stored), "stored", plate.wells)
    last = list(grid[-1])
    cells = cells_column(rows.columns)
    if cells is not None:
        values = plate_matrix(rows, cells, plate.wells)
        _heat_map(figure, last.pop(0), values, f"nuclei a field ({nuclei_of(plate.roles)})", from_zero=True)
    _heat_map(figure, last.pop(0), counts, "stored fields", from_zero=True)
    for axes in [*last, *(axes for line in grid[:-1] for axes in line[len(channels) :])]:
        axes.set_axis_off()
    figure.suptitle(f"{plate.title}: quality statistics by well (grey: no field)", fontsize=10, y=1 - 0.15 / size[1])
    return figure


def _heat_map(figure: Figure, axes: Axes, values: NDArray[np.float64], title: str, *, from_zero: bool) -> None:
    rows, columns = values.shape
    # too many wells to name each: every second, third or fourth, so that a well can still be counted out
    step = 1 if columns <= 12 else 3 if columns <= 24 else 4
    lines = 1 if rows <= 8 else 2 if rows <= 16 else 4
    axes.set_facecolor(NO_WELL)
    known = np.ma.masked_invalid(values)
    # shares and counts have a zero that means something, and a scale of nothing but one value cannot be read
    low, high = (0.0, max(float(known.max()), 1e-3)) if from_zero and known.count() else (None, None)
    shown = axes.imshow(known, cmap="viridis", aspect="equal", interpolation="nearest", vmin=low, vmax=high)
    axes.set_title(title, fontsize=7)
    axes.set_xticks(range(0, columns, step), [str(place + 1) for place in range(0, columns, step)], fontsize=5)
    axes.set_yticks(range(0, rows, lines), [row_name(place) for place in range(0, rows, lines)], fontsize=5)
    axes.tick_params(length=1.5, pad=1)
    figure.colorbar(shown, cax=axes.inset_axes((1.03, 0.1, 0.04, 0.8))).ax.tick_params(labelsize=6)


def plate_matrix(rows: pd.DataFrame, column: str, wells: int) -> NDArray[np.float64]:
    """Return the mean of a column over each well's fields in plate layout, NaN where there is none.

    Returns:
        Shape (rows, columns) of the format.
    """
    matrix = np.full(FORMATS[wells], np.nan)
    for well, value in rows.groupby("Metadata_Well")[column].mean().items():
        place = parse_well(str(well))
        if place is not None and place[0] < matrix.shape[0] and place[1] < matrix.shape[1]:
            matrix[place] = value
    return matrix
