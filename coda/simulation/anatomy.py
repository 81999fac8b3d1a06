"""Geometry of every pixel inside a cell: how deep in the cell, how deep in the nucleus, and how thick both are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coda.simulation.cells import Canvas, Cells, Territory
from coda.simulation.traits import Floats

CELL_HEIGHT_UM = 6.0
"""Height of a spread cell over its nucleus; paths are given in units of it."""

NUCLEUS_HEIGHT_UM = 4.5

OUTLINE = 1.12
"""Distance in cell radii up to which a pixel may show some of the cell."""

_MICRONUCLEI = ((1.35, 0.7), (1.30, 3.4))
"""Place of the two possible micronuclei: distance in nuclear radii, and angle from the long axis."""


@dataclass(frozen=True)
class Anatomy:
    """Values for each pixel that belongs to a cell, in the order of `index`; all arrays have shape (pixels,).

    Attributes:
        index: Position in the flattened canvas.
        cell: Index of the cell.
        radial: 0 at the cell's centre, 1 at its free edge.
        depth_um: Distance to the cell's nearest border.
        presence: 0 outside, 1 inside, soft at the outline.
        along_um, across_um: Position along and across the cell's long axis, from its centre.
        nucleus: 0 outside, 1 inside the nucleus, soft at its outline.
        nucleus_radial: 0 in the middle of the nucleus, 1 at its outline; large far away.
        cytoplasm_path: Light path through cytoplasm within the optical section, in cell heights.
        nucleus_path: Light path through the nucleus, in nuclear heights.
    """

    index: NDArray[np.intp]
    cell: NDArray[np.intp]
    radial: Floats
    depth_um: Floats
    presence: Floats
    along_um: Floats
    across_um: Floats
    nucleus: Floats
    nucleus_radial: Floats
    cytoplasm_path: Floats
    nucleus_path: Floats


def describe_pixels(canvas: Canvas, cells: Cells, territory: Territory, outline: Floats, section_um: float) -> Anatomy:
    """Work out the geometry of all pixels that belong to a cell.

    Args:
        canvas: The field.
        cells: Its cells.
        territory: Which pixel belongs to which cell.
        outline: Texture of deviation 1, shape (side, side), that makes nuclei uneven.
        section_um: Depth of the optical section: how much of the cell's height gives light in focus.
    """
    row, column = np.nonzero(territory.radial < OUTLINE)
    index = row * canvas.side_px + column
    cell = territory.owner.ravel()[index].astype(np.intp)
    # The rough outline can push the distance below zero in the middle of a cell.
    radial = np.maximum(territory.radial.ravel()[index], 0)
    traits = cells.traits
    radius = traits["cell_radius_um"][cell]
    depth_um = np.minimum(1 - radial, 0.5 * territory.contact.ravel()[index]) * radius
    # A soft outline one micrometre wide at the free edge, and a faint groove where cells touch.
    presence = np.clip((1 - radial) * radius + 0.5, 0, 1) * np.clip(0.55 + 0.45 * depth_um, 0, 1)
    pixel = np.float32(canvas.pixel_size_um)
    axis = (np.arange(canvas.side_px, dtype=np.float32) + np.float32(0.5)) * pixel
    dx, dy = axis[column] - cells.x_um[cell], axis[row] - cells.y_um[cell]
    cos, sin = np.cos(cells.angle)[cell], np.sin(cells.angle)[cell]
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    nucleus_radial = _nucleus_distance(cells, cell, along, across)
    nucleus_radial = np.maximum(nucleus_radial + traits["nucleus_irregularity"][cell] * outline.ravel()[index], 0)
    soft = traits["nucleus_radius_um"][cell]
    nucleus = np.clip((1 - nucleus_radial) * soft / np.float32(1.2) + np.float32(0.5), 0, 1) * (radial < 1)
    rounded = np.maximum(cells.mitotic, cells.condensed)[cell]
    dome = np.maximum(1 - radial**2, 0)
    height_um = CELL_HEIGHT_UM * presence * (0.30 + 0.70 * dome) * (1 + rounded)
    inner = np.sqrt(np.maximum(1 - np.minimum(nucleus_radial, 1) ** 2, 0))
    nucleus_um = np.minimum(NUCLEUS_HEIGHT_UM * nucleus * (0.45 + 0.55 * inner) * (1 + 0.5 * rounded), 0.92 * height_um)
    seen_um, seen_nucleus_um = _within_section(height_um, section_um), _within_section(nucleus_um, section_um)
    scale = np.float32(_within_section(np.array(CELL_HEIGHT_UM), section_um))
    nucleus_scale = np.float32(_within_section(np.array(NUCLEUS_HEIGHT_UM), section_um))
    return Anatomy(
        index=index,
        cell=cell,
        radial=radial,
        depth_um=depth_um,
        presence=presence.astype(np.float32),
        along_um=along,
        across_um=across,
        nucleus=nucleus.astype(np.float32),
        nucleus_radial=nucleus_radial,
        cytoplasm_path=(np.maximum(seen_um - seen_nucleus_um, 0.03 * seen_um) / scale).astype(np.float32),
        nucleus_path=(seen_nucleus_um / nucleus_scale).astype(np.float32),
    )


def _nucleus_distance(cells: Cells, cell: NDArray[np.intp], along: Floats, across: Floats) -> Floats:
    """Return the distance to the nearest nucleus of the cell, in its radii: main, second and micronuclei."""
    traits = cells.traits
    radius = traits["nucleus_radius_um"]
    stretch = np.sqrt(traits["nucleus_elongation"])
    # Two daughter nuclei lie side by side along the cell and are a little smaller than one.
    shift = 0.86 * radius * cells.second_nucleus
    main = radius * (1 - 0.20 * cells.second_nucleus)
    flat, tall = 1 / (main * stretch), stretch / main
    u, v = (along - shift[cell]) * flat[cell], across * tall[cell]
    nearest = np.sqrt(u * u + v * v)
    if cells.second_nucleus.any():
        second = np.where(cells.second_nucleus > 0, 1.0, 0.0).astype(np.float32)
        u = (along + shift[cell]) * flat[cell]
        other = np.sqrt(u * u + v * v)
        nearest = np.where(second[cell] > 0, np.minimum(nearest, other), nearest)
    for number, (distance, angle) in enumerate(_MICRONUCLEI):
        present = cells.micronuclei > number
        if present.any():
            x = (distance * radius * np.cos(angle)).astype(np.float32)[cell]
            y = (distance * radius * np.sin(angle)).astype(np.float32)[cell]
            small = np.sqrt((along - x) ** 2 + (across - y) ** 2) / (0.30 * radius)[cell]
            nearest = np.where(present[cell], np.minimum(nearest, small), nearest)
    return nearest.astype(np.float32)


def _within_section(height_um: NDArray[np.floating], section_um: float) -> NDArray[np.floating]:
    """Return how much of a height lies within an optical section whose sensitivity falls off exponentially."""
    seen: NDArray[np.floating] = section_um * -np.expm1(-height_um / section_um)
    return seen
