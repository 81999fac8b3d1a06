"""Laboratories: microscope, camera, stain recipe and habits of the built-in sources.

The values are typical of the instruments named, taken from their data sheets' order of magnitude, not measured on
one. What differs between the laboratories is what differs between real ones; nothing here was chosen by looking at
how an adaptation method fares.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from coda.contracts import STAINS
from coda.contracts.manifest import Instrument
from coda.errors import ConfigError, Problem

PerStain = tuple[float, float, float, float, float]
"""One number a stain, in the order DNA, ER, RNA, AGP, Mito."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Spread = Annotated[float, Field(ge=0)]


class Model(BaseModel):
    """A strict, frozen set of numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Optics(Model):
    """From the sample to the light that reaches the camera."""

    pixel_size_um: Positive = Field(description="Edge of an unbinned pixel in the sample.")
    psf_sigma_um: Positive = Field(description="Standard deviation of the in-focus spot at 520 nm.")
    numerical_aperture: Positive = Field(description="Decides how fast defocus blurs.")
    section_um: Positive = Field(description="Depth of the optical section; larger than a cell for widefield.")
    haze: Share = Field(description="Share of the light that arrives out of focus.")
    haze_sigma_um: Positive = Field(description="Width of that out-of-focus light.")
    background: PerStain = Field(description="Even background, in units of a typical cell's signal.")
    vignetting: Share = Field(description="Loss of light from the brightest point to a corner one half-diagonal away.")
    vignetting_offset: Share = Field(description="Offset of the brightest point from the centre, of the field's edge.")
    crosstalk: tuple[tuple[str, str, float], ...] = Field(
        description="(from stain, into stain, share): light of one stain seen in another's channel."
    )


class Camera(Model):
    """From light to numbers."""

    photons: PerStain = Field(description="Photo-electrons a pixel for a typical cell's signal at 1.1 um pixels.")
    read_noise: Spread = Field(description="Standard deviation of the read-out, electrons.")
    gain: Positive = Field(description="Grey levels for one electron.")
    offset: Spread = Field(description="Grey level of no light.")
    gamma: Positive = Field(description="Exponent of the export; 1 is linear.")
    bit_depth: int = Field(ge=8, le=16, description="Bits of the sensor; the files are 16-bit anyway.")


class Variation(Model):
    """How much things change from batch to batch, plate to plate, well to well, field to field."""

    batch_biology: Spread = Field(description="Standard deviation of trait means, in noticeable steps.")
    plate_biology: Spread
    well_biology: Spread
    batch_staining: Spread = Field(description="Standard deviation of log staining intensity, each stain alone.")
    plate_staining: Spread
    well_staining: Spread
    batch_focus_um: Spread = Field(description="Standard deviation of the focus height.")
    plate_focus_um: Spread
    field_focus_um: Spread
    batch_density: Spread = Field(description="Standard deviation of log cell density.")
    plate_density: Spread
    well_density: Spread
    background: Spread = Field(description="Standard deviation of log background from batch to batch.")
    well_background: Spread = Field(default=0.0, description="Standard deviation of log background from well to well.")
    edge_effect: Spread = Field(description="Typical loss of cells and stain in the outermost wells, as log.")
    gradient: Spread = Field(description="Typical log change of staining from one side of the plate to the other.")
    debris_per_field: Spread = Field(description="Expected bright specks of dust in a field.")


class Laboratory(Model):
    """One source of plates."""

    name: str
    instrument: str = Field(description="Microscope as the laboratory calls it.")
    modality: Literal["widefield", "confocal"]
    objective: str
    file_names: Literal["phenix", "cellvoyager", "imagexpress"]
    channel_numbers: tuple[int, int, int, int, int] = Field(
        description="Number in file names of DNA, ER, RNA, AGP, Mito."
    )
    compression: Literal["none", "lzw"] = "none"
    optics: Optics
    camera: Camera
    variation: Variation
    stain_recipe: PerStain = Field(description="Staining intensity of this laboratory's protocol, 1 is lab_a's.")
    biology: dict[str, float] = Field(description="How its cell stock differs: effects on the traits' scales.")
    cells_per_mm2: Positive = Field(description="Cells seeded that would be seen without treatment.")

    def described(self, binning: int) -> Instrument:
        """Return what the manifest says about the instrument."""
        return Instrument(
            name=self.instrument,
            modality=self.modality,
            objective=self.objective,
            pixel_size_um=round(self.optics.pixel_size_um * binning, 4),
            bit_depth=self.camera.bit_depth,
        )


_VARIATION = Variation(
    batch_biology=0.60, plate_biology=0.20, well_biology=0.30, batch_staining=0.25, plate_staining=0.08,
    well_staining=0.05, batch_focus_um=1.0, plate_focus_um=0.5, field_focus_um=0.5, batch_density=0.12,
    plate_density=0.06, well_density=0.08, background=0.20, edge_effect=0.10, gradient=0.06, debris_per_field=0.4,
)  # fmt: skip

_ROUTINE = Variation(
    batch_biology=0.08, plate_biology=0.06, well_biology=0.30, batch_staining=0.012, plate_staining=0.012,
    well_staining=0.05, batch_focus_um=0.15, plate_focus_um=0.15, field_focus_um=0.4, batch_density=0.02,
    plate_density=0.02, well_density=0.08, background=0.03, edge_effect=0.05, gradient=0.04, debris_per_field=0.4,
)  # fmt: skip
"""A screen by routine: one cell stock, one stain lot, one operator, the same plates every week."""

_UNEVEN = _VARIATION.model_copy(
    update={"well_background": 0.5, "batch_focus_um": 1.5, "field_focus_um": 1.2, "edge_effect": 0.2, "gradient": 0.15}
)
"""Wells that differ: medium left over, plates that lie unevenly, gradients."""

LABORATORIES: dict[str, Laboratory] = {
    "lab_a": Laboratory(
        name="lab_a", instrument="Opera Phenix (non-confocal)", modality="widefield", objective="20x/1.0",
        file_names="phenix", channel_numbers=(5, 4, 3, 2, 1),
        optics=Optics(
            pixel_size_um=0.55, psf_sigma_um=0.45, numerical_aperture=1.0, section_um=25.0, haze=0.30,
            haze_sigma_um=9.0, background=(0.10, 0.15, 0.18, 0.15, 0.12), vignetting=0.18, vignetting_offset=0.06,
            crosstalk=(("ER", "RNA", 0.12), ("RNA", "ER", 0.06), ("RNA", "AGP", 0.05), ("AGP", "Mito", 0.03)),
        ),
        camera=Camera(
            photons=(420.0, 330.0, 300.0, 360.0, 300.0), read_noise=3.0, gain=6.0, offset=110.0, gamma=1.0,
            bit_depth=16,
        ),
        variation=_VARIATION, stain_recipe=(1.0, 1.0, 1.0, 1.0, 1.0), biology={}, cells_per_mm2=900.0,
    ),
    "lab_b": Laboratory(
        name="lab_b", instrument="CellVoyager (spinning disk)", modality="confocal", objective="20x/0.75",
        file_names="cellvoyager", channel_numbers=(1, 2, 3, 4, 5),
        optics=Optics(
            pixel_size_um=0.60, psf_sigma_um=0.55, numerical_aperture=0.75, section_um=3.0, haze=0.06,
            haze_sigma_um=6.0, background=(0.03, 0.05, 0.06, 0.05, 0.04), vignetting=0.12, vignetting_offset=0.15,
            crosstalk=(("ER", "RNA", 0.22), ("RNA", "AGP", 0.20), ("AGP", "RNA", 0.06), ("AGP", "Mito", 0.06)),
        ),
        camera=Camera(
            photons=(160.0, 110.0, 90.0, 130.0, 150.0), read_noise=2.0, gain=9.0, offset=210.0, gamma=1.0,
            bit_depth=16,
        ),
        variation=_VARIATION, stain_recipe=(1.1, 0.85, 0.9, 1.3, 1.2),
        biology={
            "cell_radius_um": 0.10, "cell_elongation": 0.12, "fibres": 0.50, "golgi_level": 0.35,
            "nucleoli_level": 0.30, "chromatin_contrast": 0.30, "er_perinuclear": 0.25, "mito_perinuclear": -0.30,
        },
        cells_per_mm2=820.0,
    ),
    "lab_c": Laboratory(
        name="lab_c", instrument="ImageXpress (LED widefield)", modality="widefield", objective="20x/0.45",
        file_names="imagexpress", channel_numbers=(1, 4, 3, 5, 2),
        optics=Optics(
            pixel_size_um=0.64, psf_sigma_um=0.80, numerical_aperture=0.45, section_um=60.0, haze=0.45,
            haze_sigma_um=12.0, background=(0.22, 0.35, 0.45, 0.30, 0.25), vignetting=0.35, vignetting_offset=0.10,
            crosstalk=(
                ("ER", "RNA", 0.25), ("RNA", "ER", 0.15), ("RNA", "AGP", 0.16), ("AGP", "RNA", 0.05),
                ("AGP", "Mito", 0.08), ("DNA", "ER", 0.03),
            ),
        ),
        camera=Camera(
            photons=(240.0, 150.0, 170.0, 140.0, 120.0), read_noise=6.0, gain=1.6, offset=64.0, gamma=0.85,
            bit_depth=12,
        ),
        variation=_VARIATION, stain_recipe=(0.85, 1.15, 1.2, 0.8, 0.9),
        biology={
            "cell_radius_um": -0.08, "nucleus_radius_um": -0.06, "cortex": 0.40, "agp_vesicles": 0.50,
            "nucleoli_area": -0.30, "er_perinuclear": -0.25, "mito_perinuclear": 0.30, "mito_network": -0.60,
        },
        cells_per_mm2=980.0,
    ),
    "lab_d": Laboratory(
        name="lab_d", instrument="ImageXpress (metal halide lamp)", modality="widefield", objective="20x/0.75",
        file_names="imagexpress", channel_numbers=(1, 4, 3, 5, 2),
        optics=Optics(
            pixel_size_um=0.60, psf_sigma_um=0.60, numerical_aperture=0.75, section_um=40.0, haze=0.35,
            haze_sigma_um=10.0, background=(0.14, 0.20, 0.25, 0.20, 0.16), vignetting=0.25, vignetting_offset=0.08,
            crosstalk=(("ER", "RNA", 0.18), ("RNA", "ER", 0.08), ("RNA", "AGP", 0.10), ("AGP", "Mito", 0.05)),
        ),
        camera=Camera(
            photons=(320.0, 240.0, 220.0, 260.0, 240.0), read_noise=4.0, gain=4.0, offset=100.0, gamma=1.0,
            bit_depth=16,
        ),
        variation=_ROUTINE, stain_recipe=(0.95, 1.1, 1.05, 0.9, 1.0),
        biology={
            "cell_radius_um": -0.05, "cell_elongation": 0.06, "fibres": 0.25, "golgi_level": 0.15,
            "mito_perinuclear": 0.15,
        },
        cells_per_mm2=940.0,
    ),
    "lab_e": Laboratory(
        name="lab_e", instrument="CellVoyager (0.63x tube lens)", modality="confocal", objective="20x/0.75",
        file_names="cellvoyager", channel_numbers=(1, 2, 3, 4, 5),
        optics=Optics(
            pixel_size_um=0.87, psf_sigma_um=0.65, numerical_aperture=0.75, section_um=2.5, haze=0.10,
            haze_sigma_um=7.0, background=(0.20, 0.30, 0.35, 0.25, 0.20), vignetting=0.30, vignetting_offset=0.25,
            crosstalk=(
                ("ER", "RNA", 0.30), ("RNA", "ER", 0.20), ("RNA", "AGP", 0.10), ("AGP", "Mito", 0.12),
                ("DNA", "ER", 0.05),
            ),
        ),
        camera=Camera(
            photons=(400.0, 300.0, 280.0, 340.0, 300.0), read_noise=5.0, gain=5.0, offset=60.0, gamma=1.0,
            bit_depth=12,
        ),
        variation=_UNEVEN, stain_recipe=(1.3, 0.7, 1.4, 0.75, 0.8),
        biology={
            "cell_radius_um": -0.30, "nucleus_radius_um": -0.12, "cell_elongation": -0.15, "fibres": -0.90,
            "cortex": 0.60, "nucleoli_area": 0.40, "chromatin_contrast": 0.30, "golgi_level": -0.50,
            "er_perinuclear": 0.40, "mito_network": 0.80,
        },
        cells_per_mm2=1500.0,
    ),
}  # fmt: skip
"""The built-in laboratories: `lab_a` trains, `lab_b` and `lab_c` are what adaptation is for, `lab_d` is a routine, and
`lab_e` differs in what moments of a batch do not tell: wells, focus, saturation, magnification, another cell line."""


def find_laboratory(name: str) -> Laboratory:
    """Return a built-in laboratory.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in LABORATORIES:
        known = ", ".join(LABORATORIES)
        problem = Problem("laboratory", repr(name), f"one of {known}", "Choose a built-in laboratory.")
        raise ConfigError("This laboratory cannot be simulated.", [problem])
    return LABORATORIES[name]


def with_lamp(laboratory: Laboratory, output: float) -> Laboratory:
    """Return a laboratory whose lamp gives this share of its light, with the same exposure times.

    Every stain and the background get darker alike; offset and read noise of the camera stay.

    Args:
        laboratory: With a new lamp.
        output: Share of the light, above 0.

    Raises:
        ConfigError: The output is not above 0 and at most 1.
    """
    if not 0 < output <= 1:
        problem = Problem("output", repr(output), "above 0 and at most 1", "Choose a share of the light.")
        raise ConfigError("The lamp cannot be simulated.", [problem])
    photons = tuple(output * number for number in laboratory.camera.photons)
    return laboratory.model_copy(update={"camera": laboratory.camera.model_copy(update={"photons": photons})})


STAIN_INDEX = {stain: position for position, stain in enumerate(STAINS)}
"""Stain -> position in every array whose first axis is the stain."""
