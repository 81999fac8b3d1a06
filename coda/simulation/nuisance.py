"""What changes an image and is not the treatment: draws for a batch, a plate, a well and a field.

Every level adds to the one above, so that two plates of one batch are more alike than two batches, as in real data.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from coda.contracts import STAINS
from coda.simulation.design import Design, WellPlan
from coda.simulation.laboratories import Laboratory
from coda.simulation.seeds import stream
from coda.simulation.traits import NAMES, STEPS, TRAITS, effect_vector

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Conditions:
    """State of the cells and of the microscope at one level (batch, plate, well or field).

    Attributes:
        biology: Added to the trait means, shape (traits,), on the traits' scales.
        log_staining: Log staining intensity of each stain, shape (5,).
        log_background: Log of the background relative to the laboratory's usual.
        log_density: Log of the cells seeded relative to the laboratory's usual.
        focus_um: Height of the focal plane over the best one.
        tilt_um: Focus change from the left to the right and from the top to the bottom edge of a field.
        bright_point: Position of the brightest point, (x, y), in field edges from the centre.
        crosstalk_factor: Factor on the laboratory's crosstalk.
        log_edge: Log change of stain and cells in the outermost wells of the plate.
        gradient: Log change of staining over the plate's columns and rows, from one side to the other.
    """

    biology: Vector
    log_staining: Vector
    log_background: float = 0.0
    log_density: float = 0.0
    focus_um: float = 0.0
    tilt_um: tuple[float, float] = (0.0, 0.0)
    bright_point: tuple[float, float] = (0.0, 0.0)
    crosstalk_factor: float = 1.0
    log_edge: float = 0.0
    gradient: tuple[float, float] = (0.0, 0.0)

    def described(self) -> dict[str, object]:
        """Return the numbers as JSON values, rounded, biology by trait and staining by stain."""
        plain: dict[str, object] = {}
        for name, value in asdict(self).items():
            if name == "biology":
                plain[name] = {trait: round(float(x), 4) for trait, x in zip(NAMES, value, strict=True)}
            elif name == "log_staining":
                plain[name] = {stain: round(float(x), 4) for stain, x in zip(STAINS, value, strict=True)}
            elif isinstance(value, tuple):
                plain[name] = [round(float(x), 4) for x in value]
            else:
                plain[name] = round(float(value), 4)
        return plain


def draw_batch(seed: int, laboratory: Laboratory, batch: str, design: Design) -> Conditions:
    """Draw the conditions of a batch: cell passage, stain lot, focus offset, condenser, filters."""
    rng = stream(seed, laboratory.name, batch, "conditions")
    variation, factor = laboratory.variation, design.batch_strength
    angle = rng.uniform(0, 2 * np.pi)
    offset = laboratory.optics.vignetting_offset * float(np.exp(0.3 * factor * rng.standard_normal()))
    return Conditions(
        biology=effect_vector(laboratory.biology) + _biology(rng, variation.batch_biology * factor),
        log_staining=np.log(laboratory.stain_recipe) + _normal(rng, variation.batch_staining * factor, len(STAINS)),
        log_background=_one(rng, variation.background * factor),
        log_density=_one(rng, variation.batch_density * factor),
        focus_um=_one(rng, variation.batch_focus_um * factor),
        tilt_um=(_one(rng, 0.6 * factor), _one(rng, 0.6 * factor)),
        bright_point=(offset * float(np.cos(angle)), offset * float(np.sin(angle))),
        crosstalk_factor=float(np.exp(_one(rng, 0.15 * factor))),
    )


def draw_plate(seed: int, laboratory: Laboratory, batch: str, plate: str, design: Design) -> Conditions:
    """Draw the conditions of a plate within its batch, by adding to the batch's."""
    above = draw_batch(seed, laboratory, batch, design)
    rng = stream(seed, laboratory.name, batch, plate, "conditions")
    variation, factor = laboratory.variation, design.batch_strength
    return Conditions(
        biology=above.biology + _biology(rng, variation.plate_biology * factor),
        log_staining=above.log_staining + _normal(rng, variation.plate_staining * factor, len(STAINS)),
        log_background=above.log_background,
        log_density=above.log_density + _one(rng, variation.plate_density * factor),
        focus_um=above.focus_um + _one(rng, variation.plate_focus_um * factor),
        tilt_um=above.tilt_um,
        bright_point=above.bright_point,
        crosstalk_factor=above.crosstalk_factor,
        log_edge=-abs(_one(rng, variation.edge_effect * factor)),
        gradient=(_one(rng, variation.gradient * factor), _one(rng, variation.gradient * factor)),
    )


def draw_well(seed: int, laboratory: Laboratory, names: Sequence[str], plan: WellPlan, design: Design) -> Conditions:
    """Draw the conditions of a well: pipetting, its place on the plate, and the plate's own.

    Args:
        seed: Seed of the experiment.
        laboratory: The source.
        names: Batch and plate.
        plan: The well.
        design: For the plate's shape and the strength of nuisance.
    """
    batch, plate = names
    above = draw_plate(seed, laboratory, batch, plate, design)
    rng = stream(seed, laboratory.name, batch, plate, plan.well, "conditions")
    variation, factor = laboratory.variation, design.batch_strength
    # a stream of its own: laboratories without this nuisance have the draws that they always had
    background = stream(seed, laboratory.name, batch, plate, plan.well, "background")
    rows, columns = design.shape
    on_edge = plan.row in (0, rows - 1) or plan.column in (0, columns - 1)
    place = above.log_edge * on_edge
    place += above.gradient[0] * (plan.column / (columns - 1) - 0.5) + above.gradient[1] * (plan.row / (rows - 1) - 0.5)
    return Conditions(
        biology=above.biology + _biology(rng, variation.well_biology * factor),
        log_staining=above.log_staining + place + _normal(rng, variation.well_staining * factor, len(STAINS)),
        log_background=above.log_background + _one(background, variation.well_background * factor),
        log_density=above.log_density + above.log_edge * on_edge + _one(rng, variation.well_density * factor),
        focus_um=above.focus_um,
        tilt_um=above.tilt_um,
        bright_point=above.bright_point,
        crosstalk_factor=above.crosstalk_factor,
    )


def _biology(rng: np.random.Generator, steps: float) -> Vector:
    return rng.standard_normal(len(TRAITS)) * STEPS * steps


def _normal(rng: np.random.Generator, sd: float, count: int) -> Vector:
    return rng.standard_normal(count) * sd


def _one(rng: np.random.Generator, sd: float) -> float:
    return float(rng.standard_normal() * sd)
