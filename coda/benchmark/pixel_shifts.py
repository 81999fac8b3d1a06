"""Stored fields as another microscope would have shown them: shifts by kind and strength, on real pixels.

A shift of strength 1 is of the size of what differs between instruments, not the difference of any two. What
microscopes do before digitisation is imitated after it, on illumination-corrected 8-bit pixels: saturated pixels stay
saturated, and detail that was never resolved does not come back.
"""

import hashlib
import re
from typing import Literal, get_args

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from pydantic import Field

from coda.contracts.base import Part
from coda.errors import ConfigError, Problem
from coda.simulation.optics import blur

Kind = Literal["photometric", "optical", "geometric"]
KINDS: tuple[Kind, ...] = get_args(Kind)

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


class PixelShift(Part):
    """One kind of difference between microscopes.

    Attributes:
        kind: What differs.
        strength: 0 changes nothing; at 1 it is what differs between instruments.
    """

    kind: Kind
    strength: float = Field(ge=0, le=MAX_STRENGTH)

    def __str__(self) -> str:
        """Return it as it is typed, without the colon: ``optical 0.5``."""
        return f"{self.kind} {self.strength:g}"


def read_shift(text: str) -> PixelShift:
    """Return the shift that an option names, as ``optical:0.5``.

    Raises:
        ConfigError: It cannot be understood.
    """
    found = re.fullmatch(r"([a-z]+):(\d+(?:\.\d*)?)", text.strip())
    if found is None or found[1] not in KINDS or float(found[2]) > MAX_STRENGTH:
        expected = f"KIND:STRENGTH, a kind among {', '.join(KINDS)} and a strength from 0 to {MAX_STRENGTH:g}"
        raise ConfigError(
            "A shift cannot be understood.", [Problem("--shift", repr(text), expected, "Write for example optical:1.")]
        )
    return PixelShift.model_validate({"kind": found[1], "strength": float(found[2])})


def shifted(images: NDArray[np.uint8], names: list[str], shift: PixelShift) -> NDArray[np.uint8]:
    """Return fields as the other microscope shows them.

    Args:
        images: Shape (fields, channels, height, width).
        names: Name of each field; noise is drawn from it, so a field looks the same wherever it stands.
        shift: What differs. Strength 0 gives a copy.

    Returns:
        The same shape.

    Example:
        >>> flat = np.full((1, 1, 4, 4), 100, np.uint8)
        >>> np.unique(shifted(flat, ["f1"], read_shift("optical:1"))).tolist()
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
