"""Cells in a field: where they are, what they are like, and which pixel belongs to which."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coda.simulation.traits import Floats, draw_cells

REACH = 1.25
"""How far out, in cell radii, a cell's own distance is computed."""


@dataclass(frozen=True)
class Cells:
    """Cells of one field, one value a cell.

    Attributes:
        x_um, y_um: Centres on the canvas.
        angle: Direction of the long axis, radians.
        traits: Trait name -> value of each cell in its unit.
        mitotic: 1 for a rounded cell with condensed chromosomes, else 0.
        condensed: 1 for a dying cell, else 0.
        second_nucleus: 1 for a cell with two nuclei, else 0.
        micronuclei: Number of micronuclei, 0 to 2.
        golgi_angle: Side of the nucleus on which the Golgi lies, radians.
    """

    x_um: Floats
    y_um: Floats
    angle: Floats
    traits: dict[str, Floats]
    mitotic: Floats
    condensed: Floats
    second_nucleus: Floats
    micronuclei: Floats
    golgi_angle: Floats

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.x_um)


@dataclass(frozen=True)
class Canvas:
    """A square field with a margin, so that neighbours' light and cut-off cells come in at the edges.

    Attributes:
        side_px: Edge of the canvas in pixels, margin included.
        margin_px: Width of the margin on each side.
        pixel_size_um: Edge of a pixel in the sample.
    """

    side_px: int
    margin_px: int
    pixel_size_um: float

    @property
    def side_um(self) -> float:
        """Edge of the canvas in the sample."""
        return self.side_px * self.pixel_size_um


def place_cells(
    canvas: Canvas,
    cells_per_mm2: float,
    effects: NDArray[np.float64],
    heterogeneity: float,
    rng: np.random.Generator,
) -> Cells:
    """Draw the cells of a field.

    Centres are a turned hexagonal grid with jitter, whose spacing follows the density, and from which cells are
    missing where the well lost some (trait ``survival``).

    Args:
        canvas: Where.
        cells_per_mm2: Cells seeded, before losses.
        effects: Sum of all effects on the well, shape (traits,), on the traits' scales.
        heterogeneity: Factor on cell-to-cell variation.
        rng: Stream of the field's cells.
    """
    x_um, y_um = _hexagonal_grid(canvas.side_um, cells_per_mm2, rng)
    survivors = draw_cells(effects, 1, 0.0, rng)["survival"][0]
    keep = rng.random(len(x_um)) < min(float(survivors), 1.0)
    x_um, y_um = x_um[keep], y_um[keep]
    count = len(x_um)
    traits = draw_cells(effects, count, heterogeneity, rng)
    chance = rng.random((5, count)).astype(np.float32)
    condensed = (chance[0] < traits["condensed"]).astype(np.float32)
    mitotic = (chance[1] < traits["mitotic"]).astype(np.float32) * (1 - condensed)
    resting = 1 - np.maximum(condensed, mitotic)
    micronuclei = (chance[2] < traits["micronuclei"]).astype(np.float32) + (chance[3] < traits["micronuclei"])
    cells = Cells(
        x_um=x_um,
        y_um=y_um,
        angle=rng.uniform(0, np.pi, count).astype(np.float32),
        traits=traits,
        mitotic=mitotic,
        condensed=condensed,
        second_nucleus=(chance[4] < traits["binucleate"]).astype(np.float32) * resting,
        micronuclei=micronuclei.astype(np.float32) * resting,
        golgi_angle=rng.uniform(0, 2 * np.pi, count).astype(np.float32),
    )
    _change_state(cells)
    return cells


def _hexagonal_grid(side_um: float, cells_per_mm2: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    spacing = float(np.sqrt(2 / np.sqrt(3) * 1e6 / cells_per_mm2))
    steps = int(np.ceil(side_um / spacing * 0.75)) + 2
    row, column = np.mgrid[-steps : steps + 1, -steps : steps + 1]
    x = (column + 0.5 * (row % 2)).ravel() * spacing
    y = row.ravel() * spacing * np.sqrt(3) / 2
    turn = rng.uniform(0, np.pi / 3)
    start = rng.uniform(0, spacing, 2)
    jitter = rng.standard_normal((2, x.size)) * 0.20 * spacing
    turned_x = np.cos(turn) * x - np.sin(turn) * y + jitter[0] + side_um / 2 + start[0]
    turned_y = np.sin(turn) * x + np.cos(turn) * y + jitter[1] + side_um / 2 + start[1]
    border = 12.0
    inside = (np.abs(turned_x - side_um / 2) < side_um / 2 + border) & (
        np.abs(turned_y - side_um / 2) < side_um / 2 + border
    )
    return turned_x[inside].astype(np.float32), turned_y[inside].astype(np.float32)


def _change_state(cells: Cells) -> None:
    """Give mitotic and dying cells their shape: rounded and small, with a condensed nucleus."""
    traits, mitotic, condensed = cells.traits, cells.mitotic, cells.condensed
    rounded = np.maximum(mitotic, condensed)
    traits["cell_radius_um"] *= 1 - 0.40 * mitotic - 0.55 * condensed
    traits["cell_elongation"] **= 1 - 0.8 * rounded
    traits["nucleus_radius_um"] *= 1 - 0.22 * mitotic - 0.45 * condensed
    traits["nucleus_elongation"] *= 1 + 0.7 * mitotic
    traits["dna_amount"] *= 1 + 0.8 * mitotic
    traits["fibres"] *= 1 - rounded
    traits["golgi_level"] *= 1 - rounded
    traits["cortex"] *= 1 + 0.4 * rounded
    traits["mito_level"] *= 1 - 0.6 * condensed
    # A nucleus never fills its cell: small cells have smaller nuclei.
    np.minimum(traits["nucleus_radius_um"], 0.72 * traits["cell_radius_um"], out=traits["nucleus_radius_um"])


@dataclass(frozen=True)
class Territory:
    """Which cell every pixel belongs to.

    Attributes:
        owner: Index of the nearest cell, shape (side, side); -1 where none is near.
        radial: Distance from the owner's centre in its own radii: 0 at the centre, 1 at the free edge.
        contact: How much nearer the owner is than the next cell, in radii; 0 on a line of contact.
    """

    owner: NDArray[np.int32]
    radial: Floats
    contact: Floats


def divide(canvas: Canvas, cells: Cells, roughness: Floats) -> Territory:
    """Give every pixel to the cell it is nearest to, in units of the cell's own radius, elongation and direction.

    A running pass keeps the smallest and second smallest distance, so cells that meet share a straight contact.

    Args:
        canvas: The field.
        cells: Its cells.
        roughness: Texture of deviation 1, shape (side, side), that makes outlines uneven.
    """
    side, pixel = canvas.side_px, canvas.pixel_size_um
    first = np.full((side, side), np.float32(9))
    second = np.full((side, side), np.float32(9))
    owner = np.full((side, side), np.int32(-1))
    traits = cells.traits
    stretch = np.sqrt(traits["cell_elongation"])
    along = (
        np.cos(cells.angle) / (traits["cell_radius_um"] * stretch),
        np.sin(cells.angle) / (traits["cell_radius_um"] * stretch),
    )
    across = (
        -np.sin(cells.angle) * stretch / traits["cell_radius_um"],
        np.cos(cells.angle) * stretch / traits["cell_radius_um"],
    )
    reach_px = np.ceil(traits["cell_radius_um"] * stretch * REACH * 1.15 / pixel).astype(int)
    axis = (np.arange(side, dtype=np.float32) + np.float32(0.5)) * np.float32(pixel)
    for cell in range(len(cells)):
        centre_row, centre_column = int(cells.y_um[cell] / pixel), int(cells.x_um[cell] / pixel)
        reach = reach_px[cell]
        rows = slice(max(centre_row - reach, 0), max(centre_row + reach + 1, 0))
        columns = slice(max(centre_column - reach, 0), max(centre_column + reach + 1, 0))
        dy = (axis[rows] - cells.y_um[cell])[:, None]
        dx = (axis[columns] - cells.x_um[cell])[None, :]
        u = along[0][cell] * dx + along[1][cell] * dy
        v = across[0][cell] * dx + across[1][cell] * dy
        distance = np.sqrt(u * u + v * v) + traits["outline_roughness"][cell] * roughness[rows, columns]
        here = first[rows, columns]
        nearer = distance < here
        np.minimum(second[rows, columns], np.maximum(here, distance), out=second[rows, columns])
        np.minimum(here, distance, out=here)
        owner[rows, columns][nearer] = cell
    return Territory(owner, first, second - first)
