"""The phenotype of a cell: named traits with typical values, units, and the scale on which effects add up."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Trait:
    """One property of a cell that a treatment, a batch or chance can change.

    Attributes:
        name: Name in code and in the documentation.
        typical: Value of an untreated cell.
        unit: Unit of the value, or what it is relative to.
        scale: ``log`` for positive amounts (effects multiply), ``logit`` for shares and probabilities.
        cell_sd: Standard deviation from cell to cell, on the scale.
        step: A change on the scale that a microscopist would notice; sizes of off-target and batch effects are given
            in steps, so that they are comparable between traits.
        meaning: What it does to the picture.
    """

    name: str
    typical: float
    unit: str
    scale: Literal["log", "logit"]
    cell_sd: float
    step: float
    meaning: str


TRAITS = (
    Trait("nucleus_radius_um", 7.4, "um", "log", 0.11, 0.12, "radius of the circle with the nucleus' area"),
    Trait("nucleus_elongation", 1.25, "ratio of axes", "log", 0.10, 0.12, "oval nuclei"),
    Trait("nucleus_irregularity", 0.06, "share of radius", "log", 0.40, 0.50, "lobed, folded outline of the nucleus"),
    Trait("binucleate", 0.04, "probability", "logit", 0.0, 0.60, "two nuclei in one cell"),
    Trait("micronuclei", 0.03, "probability each of two", "logit", 0.0, 0.60, "small extra nuclei"),
    Trait("mitotic", 0.04, "probability", "logit", 0.0, 0.50, "rounded cell with condensed chromosomes"),
    Trait("condensed", 0.012, "probability", "logit", 0.0, 0.50, "shrunken dying cell with a bright small nucleus"),
    Trait("dna_amount", 1.0, "of an untreated cell", "log", 0.18, 0.15, "total DNA stain of the nucleus"),
    Trait("chromatin_contrast", 0.18, "of mean", "log", 0.20, 0.30, "clumps in the DNA stain"),
    Trait("cell_radius_um", 18.0, "um", "log", 0.14, 0.12, "spread area of the cell"),
    Trait("cell_elongation", 1.35, "ratio of axes", "log", 0.16, 0.15, "spindle shape"),
    Trait("outline_roughness", 0.07, "share of radius", "log", 0.30, 0.40, "retracted, spiky outline"),
    Trait("er_level", 1.0, "of an untreated cell", "log", 0.18, 0.15, "endoplasmic reticulum stain"),
    Trait("er_perinuclear", 1.0, "of typical fall-off", "log", 0.20, 0.30, "ER drawn towards the nucleus"),
    Trait("er_vacuoles", 0.04, "share of cytoplasm", "logit", 0.30, 0.60, "dark holes in ER and RNA stain"),
    Trait("rna_level", 1.0, "of an untreated cell", "log", 0.18, 0.15, "RNA stain of the cytoplasm"),
    Trait("nucleoli_level", 1.0, "of an untreated cell", "log", 0.20, 0.25, "RNA stain of the nucleoli"),
    Trait("nucleoli_area", 0.16, "share of nucleus", "logit", 0.25, 0.35, "area of the nucleoli"),
    Trait("nucleoli_size", 0.35, "0 small and many, 1 few and large", "logit", 0.50, 0.60, "size of one nucleolus"),
    Trait("fibres", 0.55, "of membrane signal", "log", 0.30, 0.40, "actin stress fibres along the cell"),
    Trait("cortex", 0.60, "of membrane signal", "log", 0.25, 0.30, "actin rim under the membrane"),
    Trait("membrane", 0.45, "of AGP signal", "log", 0.18, 0.15, "even membrane and actin signal"),
    Trait("golgi_level", 1.0, "of an untreated cell", "log", 0.25, 0.30, "Golgi patch beside the nucleus"),
    Trait("golgi_spread_um", 2.6, "um", "log", 0.15, 0.25, "compact or dispersed Golgi"),
    Trait("agp_vesicles", 0.12, "of membrane signal", "log", 0.35, 0.40, "bright vesicles in AGP"),
    Trait("mito_level", 1.0, "of an untreated cell", "log", 0.18, 0.15, "mitochondrial stain (membrane potential)"),
    Trait("mito_network", 0.60, "0 fine, 1 coarse", "logit", 0.40, 0.60, "thick or thin mitochondrial network"),
    Trait("mito_fragmentation", 0.12, "share of mitochondria", "logit", 0.40, 0.60, "dots instead of threads"),
    Trait("mito_perinuclear", 1.0, "of typical fall-off", "log", 0.18, 0.30, "mitochondria drawn towards the nucleus"),
    Trait("survival", 0.9, "of cells seeded", "log", 0.0, 0.12, "cells that are left in the well"),
)
"""Every trait; the order is the axis of all effect vectors."""

NAMES = tuple(trait.name for trait in TRAITS)
STEPS: NDArray[np.float64] = np.array([trait.step for trait in TRAITS])
_TYPICAL = np.array([trait.typical for trait in TRAITS])
_CELL_SD = np.array([trait.cell_sd for trait in TRAITS])
_LOGIT = np.array([trait.scale == "logit" for trait in TRAITS])
_BASE = np.where(_LOGIT, np.log(_TYPICAL / np.where(_LOGIT, 1 - _TYPICAL, 1.0)), np.log(_TYPICAL))


def effect_vector(effects: dict[str, float]) -> NDArray[np.float64]:
    """Return named effects (on each trait's own scale) as a vector, shape (traits,).

    Raises:
        KeyError: A name is no trait.
    """
    vector = np.zeros(len(TRAITS))
    index = {name: position for position, name in enumerate(NAMES)}
    for name, value in effects.items():
        vector[index[name]] = value
    return vector


def values_of(effects: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return trait values in their own units for effects on the scale, shape (..., traits)."""
    shifted = _BASE + effects
    return np.where(_LOGIT, 1 / (1 + np.exp(-np.clip(shifted, -30, 30))), np.exp(np.clip(shifted, -30, 30)))


def draw_cells(
    effects: NDArray[np.float64], cells: int, heterogeneity: float, rng: np.random.Generator
) -> dict[str, Floats]:
    """Draw the traits of cells around a well's mean.

    Args:
        effects: Sum of all effects on the well, shape (traits,), on the traits' scales.
        cells: Number of cells.
        heterogeneity: Factor on the cell-to-cell standard deviation, 0 or more.
        rng: Stream of the field.

    Returns:
        Trait name -> value of each cell in the trait's unit, shape (cells,).
    """
    noise = rng.standard_normal((cells, len(TRAITS))) * _CELL_SD * heterogeneity
    values = values_of(effects + noise).astype(np.float32)
    return {name: np.ascontiguousarray(values[:, position]) for position, name in enumerate(NAMES)}
