"""One field of view, from the plan of its well to the camera's counts."""

from dataclasses import replace

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from coda.simulation.cells import Canvas, place_cells
from coda.simulation.design import Compound, Design, WellPlan
from coda.simulation.laboratories import Laboratory
from coda.simulation.nuisance import Conditions, draw_well
from coda.simulation.optics import photograph
from coda.simulation.seeds import stream
from coda.simulation.stains import paint
from coda.simulation.traits import Floats

MARGIN_UM = 18.0
"""Width of the unseen margin: 1.5 to 3 deviations of the haze, so little light wraps around."""


def canvas_of(design: Design, laboratory: Laboratory) -> Canvas:
    """Return the canvas of a field: the field, a margin on each side, and a size that transforms fast."""
    pixel = laboratory.optics.pixel_size_um * design.binning
    margin = int(np.ceil(MARGIN_UM / pixel))
    side = scipy.fft.next_fast_len(design.field_px + 2 * margin)
    margin += (side - design.field_px - 2 * margin) // 2
    return Canvas(side_px=design.field_px + 2 * margin, margin_px=margin, pixel_size_um=pixel)


def field_conditions(
    seed: int, laboratory: Laboratory, names: tuple[str, str], plan: WellPlan, site: int, design: Design
) -> Conditions:
    """Return the conditions of one field: the well's, and the autofocus of this field.

    Args:
        seed: Seed of the experiment.
        laboratory: The source.
        names: Batch and plate.
        plan: The well.
        site: Number of the field, from 1.
        design: Shape of the plate and strength of nuisance.
    """
    well = draw_well(seed, laboratory, names, plan, design)
    rng = stream(seed, laboratory.name, *names, plan.well, site, "focus")
    focus = well.focus_um + float(rng.standard_normal()) * laboratory.variation.field_focus_um * design.batch_strength
    # Sites lie on a square grid in the well; a tilted plate is focused a little differently at each.
    place = (site % 2 - 0.5, (site // 2) % 2 - 0.5)
    return replace(well, focus_um=focus + place[0] * well.tilt_um[0] + place[1] * well.tilt_um[1])


def render_field(
    seed: int,
    laboratory: Laboratory,
    names: tuple[str, str],
    plan: WellPlan,
    compound: Compound,
    site: int,
    design: Design,
) -> NDArray[np.uint16]:
    """Return the raw field of one site, shape (5, field_px, field_px), in the order DNA, ER, RNA, AGP, Mito.

    Args:
        seed: Seed of the experiment.
        laboratory: The source.
        names: Batch and plate.
        plan: The well.
        compound: What is in the well.
        site: Number of the field, from 1.
        design: Field size, binning and strengths.
    """
    path = (seed, laboratory.name, *names, plan.well, site)
    conditions = field_conditions(seed, laboratory, names, plan, site, design)
    canvas = canvas_of(design, laboratory)
    effects = conditions.biology + compound.effects(plan.dose_um or 0.0)
    seeded = laboratory.cells_per_mm2 * float(np.exp(conditions.log_density))
    cells = place_cells(canvas, seeded, effects, design.cell_heterogeneity, stream(*path, "cells"))
    density = paint(canvas, cells, laboratory.optics.section_um, stream(*path, "textures"))
    _add_debris(density, canvas, laboratory.variation.debris_per_field * design.batch_strength, stream(*path, "debris"))
    return photograph(density, canvas, laboratory.optics, laboratory.camera, conditions, stream(*path, "camera"))


def _add_debris(density: Floats, canvas: Canvas, expected: float, rng: np.random.Generator) -> None:
    """Add bright specks of dust: round, 2 to 5 um, in one to three stains, several times a cell's signal."""
    for _ in range(int(rng.poisson(expected))):
        x, y = rng.uniform(0, canvas.side_px, 2)
        sigma = rng.uniform(2.0, 5.0) / canvas.pixel_size_um / 2
        stains = rng.permutation(len(density))[: rng.integers(1, 4)]
        bright = rng.uniform(2.0, 8.0)
        reach = int(np.ceil(4 * sigma))
        rows = slice(max(int(y) - reach, 0), int(y) + reach + 1)
        columns = slice(max(int(x) - reach, 0), int(x) + reach + 1)
        fall_y = np.exp(-0.5 * ((np.arange(canvas.side_px)[rows] - y) / sigma) ** 2)
        fall_x = np.exp(-0.5 * ((np.arange(canvas.side_px)[columns] - x) / sigma) ** 2)
        speck = (bright * fall_y[:, None] * fall_x[None, :]).astype(np.float32)
        density[stains, rows, columns] += speck
