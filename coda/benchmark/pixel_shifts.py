"""Stored fields as another microscope would have shown them: shifts by kind and strength, on real pixels.

A shift of strength 1 is of the size of what differs between instruments, not the difference of any two. What
microscopes do before digitisation is imitated after it, on illumination-corrected 8-bit pixels: saturated pixels stay
saturated, and detail that was never resolved does not come back.
"""

import hashlib

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from coda.errors import ConfigError, Problem
from coda.simulation.optics import blur
from coda.simulation.shifts import Shift, read_shifts

KINDS = ("photometric", "optical", "geometric")
"""Kinds of shifts that finished pixels can show."""

MAX_STRENGTH = 2.0

LOG_GAIN = 0.35
"""Log factor on a stain's grey levels at strength 1; stains are brighter and darker in turn."""

LOG_GAMMA = 0.25
"""Log of the exponent of the grey curve at strength 1."""

BACKGROUND, NOISE = 10.0, 4.0
"""Grey levels that are added to every pixel, and standard deviation of the noise, at strength 1."""

BLUR_PX, HAZE, HAZE_PX = 1.5, 0.2, 12.0
"""Standard deviation of the added blur, and share of the light in a wide skirt with its deviation, at strength 1."""

MARGIN_PX = 36
"""Mirrored pixels around a field, so that light does not come in from the other side."""

CROSSTALK = 0.15
"""Share of each stain's light that is seen in the next, at strength 1."""

LOG_MAGNIFICATION = 0.26
"""Log of the magnification at strength 1: 1.3 times, as from 20x to 26x."""

Floats = NDArray[np.float32]


def read_pixel_shift(text: str) -> Shift:
    """Return the shift that an option names, as ``optical:0.5``: one of the kinds that pixels can show.

    Raises:
        ConfigError: It cannot be understood, or pixels cannot show it.
    """
    found, *more = read_shifts(text)
    if more or found.kind not in KINDS or found.strength > MAX_STRENGTH:
        expected = f"one of {', '.join(KINDS)}, with a strength from 0 to {MAX_STRENGTH:g}"
        problem = Problem("--shift", repr(text), expected, "Write for example --shift optical:1.")
        raise ConfigError("Pixels cannot show this shift.", [problem])
    return found


def seen_through(images: NDArray[np.uint8], names: list[str], shift: Shift) -> NDArray[np.uint8]:
    """Return fields as the other microscope shows them.

    Args:
        images: Shape (fields, channels, height, width).
        names: Name of each field; noise is drawn from it, so a field looks the same wherever it stands.
        shift: Of a kind among `KINDS`. Strength 0 gives a copy.

    Returns:
        The same shape.

    Example:
        >>> flat = np.full((1, 1, 4, 4), 100, np.uint8)
        >>> np.unique(seen_through(flat, ["f1"], read_pixel_shift("optical:1"))).tolist()
        [100]
    """
    out = np.empty_like(images)
    for place, (field, name) in enumerate(zip(images, names, strict=True)):
        if shift.strength == 0:
            out[place] = field
            continue
        seen = _SEEN[shift.kind](field.astype(np.float32), shift.strength, name)
        out[place] = np.rint(np.clip(seen, 0, 255)).astype(np.uint8)
    return out


def _photometric(field: Floats, strength: float, name: str) -> Floats:
    turns = np.where(np.arange(len(field)) % 2 == 0, 1.0, -1.0)
    gains = np.exp(strength * LOG_GAIN * turns)[:, None, None]
    curved = 255 * (field / 255) ** np.exp(strength * LOG_GAMMA)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    noise = np.random.default_rng(seed).standard_normal(field.shape, dtype=np.float32)
    seen: Floats = (curved * gains + strength * BACKGROUND + strength * NOISE * noise).astype(np.float32)
    return seen


def _optical(field: Floats, strength: float, name: str) -> Floats:
    del name
    mixed = field + strength * CROSSTALK * np.roll(field, 1, axis=0) if len(field) > 1 else field
    margin = min(MARGIN_PX, *field.shape[1:])
    wide = np.pad(mixed, ((0, 0), (margin, margin), (margin, margin)), mode="symmetric")
    side = [slice(margin, margin + length) for length in field.shape[1:]]
    blurred = [blur(stain, 1.0, strength * BLUR_PX, strength * HAZE, HAZE_PX)[*side] for stain in wide]
    return np.stack(blurred)


def _geometric(field: Floats, strength: float, name: str) -> Floats:
    del name
    factor = np.exp(strength * LOG_MAGNIFICATION)
    size = np.array(field.shape[1:])
    offset = (size - 1) / 2 * (1 - 1 / factor)  # the middle of a field stays where it is
    return np.stack(
        [
            scipy.ndimage.affine_transform(stain, np.full(2, 1 / factor), offset, order=1, mode="nearest")
            for stain in field
        ]
    )


_SEEN = {"photometric": _photometric, "optical": _optical, "geometric": _geometric}
