"""From stain densities to camera counts: crosstalk, point-spread function, haze, vignetting, noise, grey levels."""

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from coda.contracts import STAINS
from coda.simulation.cells import Canvas
from coda.simulation.laboratories import STAIN_INDEX, Camera, Optics
from coda.simulation.nuisance import Conditions
from coda.simulation.traits import Floats

WAVELENGTH_FACTOR = (0.88, 1.0, 1.05, 1.15, 1.28)
"""Width of the in-focus spot of each stain over that at 520 nm (emission of 460 to 665 nm)."""

CHROMATIC_FOCUS_UM = (-0.4, 0.0, 0.1, 0.2, 0.5)
"""Focus of each stain over that at 520 nm: no objective is perfectly corrected."""


REFERENCE_PIXEL_UM = 1.1
"""Pixel size at which the cameras' photon numbers hold."""


def mix_channels(density: Floats, optics: Optics, conditions: Conditions) -> Floats:
    """Return what each channel's filter lets through, shape (5, side, side): its own stain and its neighbours' light.

    The staining intensities of the conditions are applied first, so a bright stain also leaks more.
    """
    stained = density * np.exp(conditions.log_staining).astype(np.float32)[:, None, None]
    mixed = stained.copy()
    for origin, into, share in optics.crosstalk:
        factor = np.float32(share * conditions.crosstalk_factor)
        mixed[STAIN_INDEX[into]] += factor * stained[STAIN_INDEX[origin]]
    return mixed


def spot_sigma_um(optics: Optics, focus_um: float, channel: int, pixel_size_um: float) -> float:
    """Return the standard deviation of a channel's spot in the sample.

    Squares add up of the in-focus spot (wider for longer wavelengths), the cone of light out of focus (its radius is
    ``|z| tan(arcsin(NA / 1.33))``, and a disc's deviation in one axis is half its radius), and the square pixel.
    """
    focused = optics.psf_sigma_um * WAVELENGTH_FACTOR[channel]
    sine = min(optics.numerical_aperture / 1.33, 0.95)
    cone = abs(focus_um + CHROMATIC_FOCUS_UM[channel]) * sine / np.sqrt(1 - sine**2) / 2
    return float(np.sqrt(focused**2 + cone**2 + pixel_size_um**2 / 12))


def blur(channel: Floats, pixel_size_um: float, sigma_um: float, haze: float, haze_sigma_um: float) -> Floats:
    """Return a channel seen through the microscope: a narrow spot and a wide skirt, light conserved.

    The transfer function is ``(1 - haze) exp(-k^2 s^2 / 2) + haze exp(-k^2 S^2 / 2)``; the canvas is periodic, which
    is why it has a margin.

    Args:
        channel: Light of one channel, shape (side, side).
        pixel_size_um: Edge of a pixel.
        sigma_um: Deviation of the spot.
        haze: Share of the light in the skirt, 0 to 1.
        haze_sigma_um: Deviation of the skirt.
    """
    side = channel.shape[0]
    row = 2 * np.pi * scipy.fft.fftfreq(side, pixel_size_um)
    column = 2 * np.pi * scipy.fft.rfftfreq(side, pixel_size_um)
    narrow = np.exp(-0.5 * (row * sigma_um) ** 2)[:, None] * np.exp(-0.5 * (column * sigma_um) ** 2)[None, :]
    wide = np.exp(-0.5 * (row * haze_sigma_um) ** 2)[:, None] * np.exp(-0.5 * (column * haze_sigma_um) ** 2)[None, :]
    transfer = ((1 - haze) * narrow + haze * wide).astype(np.float32)
    seen: Floats = scipy.fft.irfft2(scipy.fft.rfft2(channel) * transfer, s=channel.shape, overwrite_x=True)
    return seen


def illumination(side_px: int, loss: float, bright_point: tuple[float, float]) -> Floats:
    """Return the light at every pixel relative to the brightest point, shape (side, side).

    It falls as ``exp(-loss' r^2)`` with ``r`` in half-diagonals, so that a corner of a centred field has lost `loss`.

    Args:
        side_px: Edge of the field.
        loss: Share of light lost one half-diagonal away, 0 to below 1.
        bright_point: Position of the brightest point (x, y) from the centre, in field edges.
    """
    axis = (np.arange(side_px) + 0.5) / side_px - 0.5
    rate = -np.log1p(-min(loss, 0.99)) / 0.5
    fall_y = np.exp(-rate * (axis - bright_point[1]) ** 2)
    fall_x = np.exp(-rate * (axis - bright_point[0]) ** 2)
    light = fall_y[:, None] * fall_x[None, :]
    relative: Floats = (light / light.max()).astype(np.float32)
    return relative


def expose(light: Floats, photons_per_unit: float, camera: Camera, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return camera counts for the light of one channel.

    Shot and read noise are drawn together as one normal number with variance ``photons + read_noise**2``, which is
    within a few per cent of Poisson from about ten photons on. Then gain, offset, clipping at the sensor's range,
    rounding to its bits and the export's gamma.

    Args:
        light: Light relative to a typical cell's signal, background included, shape (side, side).
        photons_per_unit: Photo-electrons a pixel for light 1.
        camera: Gain, offset, noise, bits and gamma.
        rng: Stream of the noise.
    """
    electrons = np.maximum(light, 0) * np.float32(photons_per_unit)
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    electrons += np.sqrt(electrons + np.float32(camera.read_noise**2)) * noise
    top = np.float32(2**camera.bit_depth - 1)
    grey = np.clip(electrons * np.float32(camera.gain) + np.float32(camera.offset), 0, top)
    if camera.gamma != 1:
        grey = top * (grey / top) ** np.float32(camera.gamma)
    counts: NDArray[np.uint16] = np.rint(grey).astype(np.uint16)
    return counts


def photograph(
    density: Floats, canvas: Canvas, optics: Optics, camera: Camera, conditions: Conditions, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Return the raw field, shape (5, field, field), of stain densities on a canvas with a margin.

    Args:
        density: Stain densities, shape (5, side, side).
        canvas: Size, margin and pixel size.
        optics: The microscope.
        camera: Its camera.
        conditions: Those of the field: staining, focus, background, brightest point, crosstalk.
        rng: Stream of the camera's noise.
    """
    mixed = mix_channels(density, optics, conditions)
    inner = slice(canvas.margin_px, canvas.side_px - canvas.margin_px)
    side = canvas.side_px - 2 * canvas.margin_px
    field = np.empty((len(STAINS), side, side), np.uint16)
    # Smaller pixels collect less light by area; laboratories make up for half of it (as log) with longer exposure.
    exposure = canvas.pixel_size_um / REFERENCE_PIXEL_UM
    for channel in range(len(STAINS)):
        sigma = spot_sigma_um(optics, conditions.focus_um, channel, canvas.pixel_size_um)
        seen = blur(mixed[channel], canvas.pixel_size_um, sigma, optics.haze, optics.haze_sigma_um)[inner, inner]
        # A confocal section that misses the cell's middle loses light; a widefield one does not.
        missed = (conditions.focus_um + CHROMATIC_FOCUS_UM[channel]) / optics.section_um
        background = optics.background[channel] * np.exp(conditions.log_background)
        # Longer wavelengths fill the pupil a little less evenly, so each channel has its own fall-off.
        loss = optics.vignetting * (0.85 + 0.1 * channel)
        light = (seen * np.float32(np.exp(-0.5 * missed**2)) + np.float32(background)) * illumination(
            side, loss, conditions.bright_point
        )
        field[channel] = expose(light, camera.photons[channel] * exposure, camera, rng)
    return field
