"""A contact sheet of delivered batches: every stain and a colour composite, several treatments of several sources."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from coda.contracts import MANIFEST_NAME, STAINS, BatchManifest
from coda.errors import ConfigError, Problem

COLOURS = {
    "DNA": (0.15, 0.25, 1.0),
    "ER": (0.0, 0.45, 0.20),
    "RNA": (0.25, 0.25, 0.0),
    "AGP": (0.75, 0.25, 0.0),
    "Mito": (0.35, 0.0, 0.45),
}
"""Colour of each stain in the composite, red, green and blue in 0 to 1."""


def contact_sheet(
    folder: Path,
    out_png: Path,
    *,
    treatments: Sequence[str] | None = None,
    captions: Mapping[str, str] | None = None,
    side_px: int = 256,
) -> Path:
    """Draw one field of several treatments from the first batch of every source below a folder.

    Grey levels are stretched per source and stain, the same for all treatments, so intensities can be compared within
    a source.

    Args:
        folder: Folder of sources, or one batch folder.
        out_png: Picture to write.
        treatments: Names from the plate map, in order; DMSO, the positive control and six more without.
        captions: Treatment -> text shown instead of its name.
        side_px: Corner of each field that is shown.

    Raises:
        ConfigError: There is no batch below the folder, or none holds the treatments.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows: list[tuple[str, NDArray[np.float32]]] = []
    for batch_folder in _first_batches(folder):
        rows += _rows(batch_folder, treatments, captions or {}, side_px)
    if not rows:
        problem = Problem(
            str(folder), "no field of these treatments", "treatments of the plate maps", "Check the names."
        )
        raise ConfigError("No contact sheet can be drawn.", [problem])
    titles = [*STAINS, "all"]
    figure = Figure(figsize=(1.9 * len(titles), 1.9 * len(rows)), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for number, ((caption, field), line) in enumerate(zip(rows, axes, strict=True)):
        for title, panel, picture in zip(titles, line, [*field, composite(field)], strict=True):
            panel.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
            if number == 0:
                panel.set_title(title, fontsize=9)
        line[0].set_ylabel(caption, fontsize=6)
    figure.subplots_adjust(left=0.03, right=1, top=1 - 0.25 / len(rows), bottom=0, wspace=0.02, hspace=0.02)
    out_png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out_png)
    return out_png


def composite(field: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return stains in 0 to 1, shape (5, height, width), as one colour picture, shape (height, width, 3)."""
    colours = np.array([COLOURS[stain] for stain in STAINS], np.float32)
    picture: NDArray[np.float32] = np.clip(np.einsum("shw,sc->hwc", field, colours), 0, 1)
    return picture


def _first_batches(folder: Path) -> list[Path]:
    if (folder / MANIFEST_NAME).exists():
        return [folder]
    first: dict[str, Path] = {}
    for path in sorted(folder.glob(f"*/*/{MANIFEST_NAME}")):
        first.setdefault(path.parent.parent.name, path.parent)
    if not first:
        problem = Problem(str(folder), "no delivered batch", "<source>/<batch>/manifest.json", "Simulate some first.")
        raise ConfigError("No contact sheet can be drawn.", [problem])
    return list(first.values())


def _rows(
    batch_folder: Path, treatments: Sequence[str] | None, captions: Mapping[str, str], side_px: int
) -> list[tuple[str, NDArray[np.float32]]]:
    """Return caption and stretched field of every treatment on the batch's first plate."""
    manifest = BatchManifest.read(batch_folder / MANIFEST_NAME)
    plate = manifest.plates[0]
    wells: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for row in _table(batch_folder / plate.plate_map):
        if row["Metadata_Treatment"]:
            wells.setdefault(row["Metadata_Treatment"], row["Metadata_Well"])
            kinds[row["Metadata_Treatment"]] = row["Metadata_pert_type"]
    controls = [name for name, kind in kinds.items() if kind != "trt"]
    shown = treatments or [*sorted(controls, reverse=True), *sorted(set(kinds) - set(controls))[:6]]
    fields = {
        row["Metadata_Well"]: row for row in _table(batch_folder / plate.load_data) if row["Metadata_Site"] == "1"
    }
    found = [name for name in shown if wells.get(name) in fields]
    if not found:
        return []
    raw = np.stack([_read(batch_folder, fields[wells[name]])[:, :side_px, :side_px] for name in found])
    low, high = np.percentile(raw, (0.5, 99.6), axis=(0, 2, 3))
    stretched = (raw - low[:, None, None]) / np.maximum(high - low, 1)[:, None, None]
    return [
        (f"{manifest.source}\n{captions.get(name, name)}", np.clip(field, 0, 1).astype(np.float32))
        for name, field in zip(found, stretched, strict=True)
    ]


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _read(batch_folder: Path, row: dict[str, str]) -> NDArray[np.float32]:
    paths = [batch_folder / (row[f"PathName_Orig{stain}"] + row[f"FileName_Orig{stain}"]) for stain in STAINS]
    return np.stack([tifffile.imread(path) for path in paths]).astype(np.float32)
