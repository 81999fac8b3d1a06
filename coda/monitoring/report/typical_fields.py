"""The most typical fields of before and of now, side by side and equally bright, and what else tells them apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coda.contracts.changed import WhatChanged
from coda.monitoring.change_tables import LEGEND, pair_words, part_rows, plate_rows, said, well_rows
from coda.monitoring.report.composites import HIGH, LOW, MAX_SIDE_PX
from coda.monitoring.report.data_uris import Picture, from_pixels

GAP_PX, MOST_PLATES = 6, 8


def changed_section(changed: WhatChanged, pictures: Sequence[Picture]) -> dict[str, Any]:
    """Return what the page says of a comparison with earlier batches."""
    return {
        "says": said(changed),
        "parts": part_rows(changed),
        "plates": plate_rows(changed, MOST_PLATES),
        "wells": well_rows(changed),
        "legend": LEGEND,
        "pairs": [(pair_words(pair), picture) for pair, picture in zip(changed.pairs, pictures, strict=False)],
    }


def draw_pairs(
    changed: WhatChanged, images: NDArray[np.uint16], tints: Mapping[str, tuple[float, float, float]]
) -> list[Picture]:
    """Draw each pair, before on the left and now on the right.

    Every stain has one range of grey values for all pictures, so that what is brighter looks brighter.

    Args:
        changed: The comparison, with the names of pairs and stains.
        images: Shape (pairs, 2, stains, height, width): now, and before.
        tints: Stain -> red, green and blue of its light.
    """
    ends = np.percentile(images.astype(np.float64), [LOW, HIGH], axis=(0, 1, 3, 4))
    drawn = []
    for pair, both in zip(changed.pairs, images, strict=True):
        sides = [_composite(image, changed.channels, ends, tints) for image in both[::-1]]
        gap = np.full((sides[0].shape[0], GAP_PX, 3), 128, dtype=np.uint8)
        drawn.append(
            from_pixels(np.concatenate([sides[0], gap, sides[1]], axis=1), f"Before and now: {pair_words(pair)}")
        )
    return drawn


def _composite(
    image: NDArray[np.uint16],
    channels: Sequence[str],
    ends: NDArray[np.float64],
    tints: Mapping[str, tuple[float, float, float]],
) -> NDArray[np.uint8]:
    light = np.zeros((*image.shape[1:], 3))
    for plane, stain, low, high in zip(image, channels, *ends, strict=True):
        light += np.clip((plane - low) / max(high - low, 1e-9), 0, 1)[..., None] * np.array(tints[stain])
    small = np.asarray(np.rint(np.clip(light, 0, 1) * 255), dtype=np.uint8)
    # a picture of few pixels is shown larger, each pixel as a square
    return np.asarray(np.kron(small, np.ones((max(1, MAX_SIDE_PX // 2 // max(small.shape[:2])),) * 2 + (1,), np.uint8)))
