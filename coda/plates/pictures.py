"""Pictures of an ingested plate: the plate as one sees it, some fields by stain, and heat maps in plate layout."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from coda.plates.dataset import BatchFolder
from coda.plates.layout import FORMATS, parse_well, row_name
from coda.plates.resample import resample
from coda.plates.store_reading import read_arrays

TINTS = {
    "DNA": (0.1, 0.2, 1.0),
    "ER": (0.0, 0.8, 0.2),
    "RNA": (0.5, 0.5, 0.0),
    "AGP": (0.9, 0.45, 0.0),
    "Mito": (0.8, 0.0, 0.2),
}
"""Red, green and blue share of each stain in a colour picture."""

HEAT_MAPS = {"p50": "median grey value", "contrast": "contrast", "focus": "focus (power slope)"}
"""Statistic of the field index (`QC_<statistic>_<stain>`) -> title."""

Pixels = NDArray[np.uint8]


def draw_plate(batch: BatchFolder, plate: str, folder: Path) -> list[Path]:
    """Write the pictures of one plate and return their paths.

    Args:
        batch: An ingested batch.
        plate: A plate that ingest could read; validation may have refused it.
        folder: Where the PNG files go: ``<plate>_wells.png`` (a colour thumbnail of each well in plate layout),
            ``<plate>_contact_sheet.png`` (some fields, each stain apart) and ``<plate>_heat_maps.png``.

    Raises:
        KeyError: The plate has no field.
        IntegrityError: The store is damaged.
    """
    rows = batch.ingested[batch.ingested["Metadata_Plate"] == plate].reset_index(drop=True)
    if rows.empty:
        raise KeyError(plate)
    folder.mkdir(parents=True, exist_ok=True)
    channels = str(rows["channels"].iloc[0]).split(",")
    wells = FORMATS[batch.manifest.plate_wells]
    title = f"{batch.batch_id}, plate {plate}"
    figures = {
        "wells": _wells_figure(batch, rows, channels, wells, title),
        "contact_sheet": _fields_figure(batch, rows, channels, title),
        "heat_maps": _heat_figure(rows, channels, wells, title),
    }
    paths = []
    for name, figure in figures.items():
        path = folder / f"{plate}_{name}.png"
        figure.savefig(path, dpi=110)
        paths.append(path)
    return paths


def colour(pixels: Pixels, channels: Sequence[str]) -> Pixels:
    """Return one field (channels, height, width) as a colour picture (height, width, 3)."""
    tints = np.array([TINTS.get(stain, (0.3, 0.3, 0.3)) for stain in channels], dtype=np.float32)
    mixed = np.tensordot(pixels.astype(np.float32), tints, axes=(0, 0))
    return np.asarray(np.clip(mixed, 0, 255), dtype=np.uint8)


def _read(batch: BatchFolder, rows: pd.DataFrame) -> list[Pixels]:
    shapes = [
        (len(str(names).split(",")), int(height), int(width))
        for names, height, width in zip(rows["channels"], rows["height"], rows["width"], strict=True)
    ]
    return list(read_arrays(batch.path / str(rows["store"].iloc[0]), rows["array"].tolist(), shapes))


def _shrunk(pixels: Pixels, side: int) -> Pixels:
    factor = min(1.0, side / max(pixels.shape[1:]))
    shape = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[2] * factor)))
    return np.stack([np.rint(resample(plane.astype(np.float32), shape)).astype(np.uint8) for plane in pixels])


def _wells_figure(
    batch: BatchFolder, rows: pd.DataFrame, channels: Sequence[str], plate: tuple[int, int], title: str
) -> Figure:
    firsts = rows.drop_duplicates("Metadata_Well")
    places = [parse_well(well) or (0, 0) for well in firsts["Metadata_Well"]]
    low = (min(place[0] for place in places), min(place[1] for place in places))
    high = (max(place[0] for place in places), max(place[1] for place in places))
    side = 384 if len(places) <= 4 else 128 if len(places) <= 120 else 64
    size = (high[0] - low[0] + 1, high[1] - low[1] + 1)
    canvas = np.full((size[0] * side, size[1] * side, 3), 30, dtype=np.uint8)
    for place, pixels in zip(places, _read(batch, firsts), strict=True):
        small = colour(_shrunk(pixels, side - 2), channels)
        top, left = (place[0] - low[0]) * side, (place[1] - low[1]) * side
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    width = min(14.0, max(2.0 + size[1] * side / 90, 6.5))  # the title must fit also over a single well
    height = min(14.0, 1.2 + (width - 1.0) * canvas.shape[0] / canvas.shape[1])
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(canvas)
    axes.set_xticks([(c + 0.5) * side for c in range(size[1])], [str(low[1] + c + 1) for c in range(size[1])])
    axes.set_yticks([(r + 0.5) * side for r in range(size[0])], [row_name(low[0] + r) for r in range(size[0])])
    axes.set_title(f"{title}: first field of each well ({plate[0] * plate[1]}-well plate)", fontsize=10)
    return figure


def _fields_figure(batch: BatchFolder, rows: pd.DataFrame, channels: Sequence[str], title: str) -> Figure:
    chosen = rows.iloc[sorted({round(place) for place in np.linspace(0, len(rows) - 1, min(6, len(rows)))})]
    columns = len(channels) + 1
    figure = Figure(figsize=(2.3 * columns, 0.6 + 2.3 * len(chosen)), layout="constrained")
    grid = figure.subplots(len(chosen), columns, squeeze=False)
    for line, pixels, (_, row) in zip(grid, _read(batch, chosen), chosen.iterrows(), strict=True):
        small = _shrunk(pixels, 300)
        for axes, stain, plane in zip(line, channels, small, strict=False):
            axes.imshow(plane, cmap="gray", vmin=0, vmax=255)
            axes.set_title(stain, fontsize=8)
        line[-1].imshow(colour(small, channels))
        line[-1].set_title("all", fontsize=8)
        line[0].set_ylabel(f"{row['Metadata_Well']} site {row['Metadata_Site']}\n{row['Metadata_Treatment']}"[:40],
                           fontsize=7)  # fmt: skip
        for axes in line:
            axes.set_xticks([])
            axes.set_yticks([])
    figure.suptitle(f"{title}: fields as stored", fontsize=10)
    return figure


def _heat_figure(rows: pd.DataFrame, channels: Sequence[str], plate: tuple[int, int], title: str) -> Figure:
    names = [name for name in HEAT_MAPS if f"QC_{name}_{channels[0]}" in rows.columns]
    figure = Figure(figsize=(2.9 * len(channels), 0.6 + 2.0 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), len(channels), squeeze=False)
    places = [parse_well(well) or (0, 0) for well in rows["Metadata_Well"]]
    for line, name in zip(grid, names, strict=True):
        for axes, stain in zip(line, channels, strict=True):
            values = layout_means(rows[f"QC_{name}_{stain}"].to_numpy(dtype=float), places, plate)
            shown = axes.imshow(values, cmap="viridis", aspect="equal")
            axes.set_title(f"{stain}: {HEAT_MAPS[name]}", fontsize=7)
            axes.set_xticks([0, plate[1] - 1], ["1", str(plate[1])], fontsize=6)
            axes.set_yticks([0, plate[0] - 1], ["A", row_name(plate[0] - 1)], fontsize=6)
            figure.colorbar(shown, ax=axes, shrink=0.7).ax.tick_params(labelsize=6)
    figure.suptitle(f"{title}: quality statistics by well", fontsize=10)
    return figure


def layout_means(
    values: NDArray[np.float64], places: Sequence[tuple[int, int]], plate: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the mean of the values in each well, shape (rows, columns) of the plate; NaN where there is none."""
    total, count = np.zeros(plate), np.zeros(plate)
    for place, value in zip(places, values, strict=True):
        total[place] += value
        count[place] += 1
    return np.asarray(np.divide(total, count, out=np.full(plate, np.nan), where=count > 0))
