"""Paints the five stains of a field as densities, before any optics: 1 is the typical signal of an untreated cell."""

import numpy as np

from coda.contracts import STAINS
from coda.simulation.anatomy import Anatomy, describe_pixels
from coda.simulation.cells import Canvas, Cells, divide
from coda.simulation.laboratories import STAIN_INDEX
from coda.simulation.textures import DOTS_MEAN_AT_1, TextureSource, dots, threads
from coda.simulation.traits import Floats

_TYPICAL_NUCLEUS_UM = 7.4
_TYPICAL_CELL_UM = 18.0


def paint(canvas: Canvas, cells: Cells, section_um: float, rng: np.random.Generator) -> Floats:
    """Return the density of every stain, shape (5, side, side), in the order DNA, ER, RNA, AGP, Mito.

    Args:
        canvas: The field with its margin.
        cells: The cells in it.
        section_um: Depth of the optical section.
        rng: Stream of the field's textures.
    """
    textures = TextureSource(canvas.side_px, canvas.pixel_size_um, rng)
    cloud, outline = textures.draw(4.0)
    medium = [texture.ravel() for texture in textures.draw(1.7)]
    small = [texture.ravel() for texture in textures.draw(1.1)]
    coarse = [texture.ravel() for texture in textures.draw(2.4)]
    territory = divide(canvas, cells, cloud)
    pixels = describe_pixels(canvas, cells, territory, outline, section_um)
    at = pixels.index
    medium_a, medium_b = medium[0][at], medium[1][at]
    small_a, small_b = small[0][at], small[1][at]
    coarse_a, coarse_b = coarse[0][at], coarse[1][at]
    bend = outline.ravel()[at]
    nucleoli = _nucleoli(cells, pixels, medium_a, coarse_a)
    holes = _vacuoles(cells, pixels, coarse_b)
    painted = {
        "DNA": _dna(cells, pixels, medium_b, nucleoli),
        "ER": _er(cells, pixels, medium_b, holes),
        "RNA": _rna(cells, pixels, small_b, nucleoli, holes),
        "AGP": _agp(cells, pixels, bend, medium_a, small_a),
        "Mito": _mito(cells, pixels, (small_a, coarse_b), medium_b),
    }
    density = np.zeros((len(STAINS), canvas.side_px**2), np.float32)
    for stain, values in painted.items():
        density[STAIN_INDEX[stain], at] = values
    return density.reshape(len(STAINS), canvas.side_px, canvas.side_px)


def _spread(cells: Cells, pixels: Anatomy) -> Floats:
    """Return how a fixed amount of stain thins out in larger cells: half of the way to conservation."""
    area = (_TYPICAL_CELL_UM / cells.traits["cell_radius_um"]) ** 2
    factor: Floats = np.sqrt(area)[pixels.cell]
    return factor


def _nucleoli(cells: Cells, pixels: Anatomy, fine: Floats, coarse: Floats) -> Floats:
    """Return the share of nucleolus in each pixel of a nucleus, 0 to 1."""
    traits, cell = cells.traits, pixels.cell
    size = traits["nucleoli_size"][cell]
    mixed = (size * coarse + (1 - size) * fine) / np.sqrt(size**2 + (1 - size) ** 2)
    # Threshold of a standard normal that leaves the wanted share: a good linear fit of the probit on 0.02 to 0.5.
    threshold = -0.55 * np.log(traits["nucleoli_area"] / (1 - traits["nucleoli_area"]))
    inside = np.clip((0.92 - pixels.nucleus_radial) * 4, 0, 1)
    soft = np.clip((mixed - threshold[cell]) * 1.6 + 0.3, 0, 1)
    share_here: Floats = soft * inside * (1 - np.maximum(cells.mitotic, cells.condensed)[cell])
    return share_here


def _vacuoles(cells: Cells, pixels: Anatomy, texture: Floats) -> Floats:
    """Return 1 in whole cytoplasm and less in vacuoles."""
    share = cells.traits["er_vacuoles"]
    threshold = -0.55 * np.log(share / (1 - share))
    whole: Floats = 1 - 0.8 * np.clip((texture - threshold[pixels.cell]) * 1.8, 0, 1)
    return whole


def _dna(cells: Cells, pixels: Anatomy, texture: Floats, nucleoli: Floats) -> Floats:
    """Return the DNA stain: amount over area, clumped, thinner in nucleoli."""
    traits, cell = cells.traits, pixels.cell
    concentration = traits["dna_amount"] * (_TYPICAL_NUCLEUS_UM / traits["nucleus_radius_um"]) ** 2
    clumps = np.maximum(1 + traits["chromatin_contrast"][cell] * texture * 1.6, 0.1)
    stain: Floats = concentration[cell] * pixels.nucleus_path * clumps * (1 - 0.35 * nucleoli)
    return stain


def _er(cells: Cells, pixels: Anatomy, texture: Floats, holes: Floats) -> Floats:
    """Return the ER stain: a net that is dense at the nucleus and thins out to the edge."""
    traits, cell = cells.traits, pixels.cell
    fall = 1.5 * traits["er_perinuclear"][cell]
    radial = np.exp(-fall * pixels.radial) * (0.4 + fall)
    net = 0.62 + 0.38 * threads(texture, 0.8)
    envelope = 0.35 * np.exp(-(((pixels.nucleus_radial - 1.05) * 4.5) ** 2))
    level = (traits["er_level"][cell] * _spread(cells, pixels)) * holes
    stain: Floats = level * (pixels.cytoplasm_path * (radial * net + envelope) + 0.10 * pixels.nucleus_path)
    return stain


def _rna(cells: Cells, pixels: Anatomy, texture: Floats, nucleoli: Floats, holes: Floats) -> Floats:
    """Return the RNA stain: grainy cytoplasm, dim nucleoplasm, bright nucleoli."""
    traits, cell = cells.traits, pixels.cell
    cytoplasm = np.exp(-0.9 * pixels.radial) * 1.35 * np.maximum(1 + 0.18 * texture, 0) * holes
    level = traits["rna_level"][cell] * _spread(cells, pixels)
    nucleus = 0.45 * level + 1.9 * traits["nucleoli_level"][cell] * nucleoli
    stain: Floats = level * cytoplasm * pixels.cytoplasm_path + nucleus * pixels.nucleus_path
    return stain


def _agp(cells: Cells, pixels: Anatomy, bend: Floats, medium: Floats, small: Floats) -> Floats:
    """Return actin, Golgi and plasma membrane: even membrane, rim, fibres along the cell, Golgi patch, vesicles."""
    traits, cell = cells.traits, pixels.cell
    thin = np.clip(0.4 + 0.6 * pixels.cytoplasm_path, 0, 2) * pixels.presence
    rim = np.exp(-((pixels.depth_um / 1.7) ** 2)) * pixels.presence
    # Fibres: bands across the cell's width, 4.5 um apart, bent by a slow texture and broken by a faster one.
    phase = pixels.across_um * (2 * np.pi / 4.5) + 1.1 * bend
    bands = np.maximum(np.cos(phase), 0) ** 2 * np.clip(1 + 0.5 * medium, 0, 2)
    middle = np.clip(1.15 - pixels.radial, 0, 1)
    fibres = 4.0 * traits["fibres"][cell] * bands * middle
    spread = traits["golgi_spread_um"]
    reach = 1.05 * traits["nucleus_radius_um"] + 0.5 * spread
    x = (reach * np.cos(cells.golgi_angle))[cell] - pixels.along_um
    y = (reach * np.sin(cells.golgi_angle))[cell] - pixels.across_um
    patch = np.exp(-(x * x + y * y) / (2 * spread**2)[cell]) * np.maximum(0.7 + 0.6 * small, 0)
    peak = 2.4 * traits["golgi_level"] * (2.6 / spread) ** 1.3
    vesicles = dots(small, 1.0) * (traits["agp_vesicles"] * 3.0 / DOTS_MEAN_AT_1 * 0.25)[cell]
    vesicles = vesicles * np.exp(-1.2 * pixels.radial) * pixels.cytoplasm_path
    sheet = traits["membrane"][cell] * thin * (1 + fibres) + 1.7 * traits["cortex"][cell] * rim
    stain: Floats = (
        0.75 * sheet + peak[cell] * patch * pixels.presence * (0.3 + 0.7 * pixels.cytoplasm_path) + 0.5 * vesicles
    )
    return stain


def _mito(cells: Cells, pixels: Anatomy, nets: tuple[Floats, Floats], speckle: Floats) -> Floats:
    """Return the mitochondria: a fine or coarse network, partly broken into dots, denser at the nucleus."""
    traits, cell = cells.traits, pixels.cell
    fall = 2.0 * traits["mito_perinuclear"][cell]
    radial = np.exp(-fall * pixels.radial**1.5) * (0.35 + 0.75 * fall)
    coarse = traits["mito_network"][cell]
    network = (1 - coarse) * threads(nets[0], 0.6) + coarse * threads(nets[1], 0.5)
    broken = traits["mito_fragmentation"][cell]
    bodies = (1 - broken) * network + broken * dots(speckle, 1.0) * np.float32(0.8 / DOTS_MEAN_AT_1)
    stain: Floats = (
        traits["mito_level"][cell] * _spread(cells, pixels) * radial * (0.12 + 0.88 * bodies) * pixels.cytoplasm_path
    )
    return stain
