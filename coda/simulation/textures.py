"""Random textures with a chosen length scale: the raw material of chromatin, membranes, threads and dots."""

import functools

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class TextureSource:
    """Draws band-passed Gaussian noise on one canvas; two independent textures for each inverse transform.

    The spectrum is ``(k s)**2 exp(-(k s)**2 / 2)``: structures are about ``2.2 s`` wide and the texture has mean 0
    and standard deviation 1 whatever the pixel size. A scale below one pixel cannot be drawn; one pixel is used.
    """

    def __init__(self, side_px: int, pixel_size_um: float, rng: np.random.Generator) -> None:
        """Prepare a square canvas of `side_px` pixels with this pixel size."""
        self._side_px = side_px
        self._pixel_size_um = pixel_size_um
        self._rng = rng

    def draw(self, scale_um: float) -> tuple[Floats, Floats]:
        """Return two independent textures of this scale, each of the canvas' shape, mean 0, SD 1."""
        amplitude = _amplitude(self._side_px, max(scale_um / self._pixel_size_um, 1.0))
        # Real and imaginary part of the transform of complex white noise are independent of each other.
        noise = self._rng.standard_normal((*amplitude.shape, 2), dtype=np.float32)
        spectrum = noise.view(np.complex64)[:, :, 0] * amplitude
        both = scipy.fft.ifft2(spectrum, norm="forward", overwrite_x=True)
        return np.ascontiguousarray(both.real), np.ascontiguousarray(both.imag)


@functools.lru_cache(maxsize=16)
def _amplitude(side_px: int, scale_px: float) -> Floats:
    """Return the square root of the spectrum, shape (side, side), scaled for textures of standard deviation 1."""
    frequency = 2 * np.pi * scipy.fft.fftfreq(side_px) * scale_px
    k2 = frequency[:, None] ** 2 + frequency[None, :] ** 2
    amplitude = k2 * np.exp(-0.5 * k2)
    scaled: Floats = (amplitude / np.sqrt(np.sum(amplitude**2))).astype(np.float32)
    return scaled


def threads(texture: Floats, width: float) -> Floats:
    """Return a network of bright threads along the texture's zero crossings; mean about 1.

    Args:
        texture: Mean 0, deviation 1.
        width: Width of the threads in standard deviations, above 0.
    """
    # E[exp(-(t/w)^2)] of a standard normal t is w / sqrt(w^2 + 2).
    mean = width / np.sqrt(width**2 + 2)
    network: Floats = np.exp(-((texture * np.float32(1 / width)) ** 2)) * np.float32(1 / mean)
    return network


def dots(texture: Floats, threshold: float | Floats) -> Floats:
    """Return the part of a texture above a threshold (in standard deviations): separate soft dots, at least 0."""
    separate: Floats = np.maximum(texture - threshold, np.float32(0))
    return separate


DOTS_MEAN_AT_1 = 0.0833
"""Mean of `dots` at threshold 1: phi(1) - (1 - Phi(1)) of the standard normal distribution."""
