"""The obvious way to prepare a plate: scikit-image, one image after the other, one PNG a channel.

It does what DeepProfiler's `prepare` does and is written without a look at `coda.plates`: what ingest is measured
against, in speed and in its pixels.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import tifffile
from numpy.typing import NDArray

from coda.config.params import Ingest

# scikit-image has no types: what it does is reached through one untyped name
_sk: Any = skimage


@dataclass(frozen=True)
class ObviousResult:
    """What came of it.

    Attributes:
        seconds: CPU time of one core for a field, by stage: 'read', 'illumination' (the sums), 'correct', 'compress'
            (PNG, written).
        pixels: uint8, one (channels, height, width) a field.
    """

    seconds: dict[str, float]
    pixels: list[NDArray[np.uint8]]


def prepare_plate(fields: Sequence[Sequence[Path]], out: Path, params: Ingest) -> ObviousResult:
    """Prepare fields, each a TIFF a channel, as one plate.

    Args:
        fields: Files of each field, the same channels in the same order.
        out: Folder for the PNG files.
        params: Percentiles, scaling factor and illumination.
    """
    spent = dict.fromkeys(("read", "illumination", "correct", "compress"), 0.0)
    mark = time.process_time()

    def lap(stage: str) -> None:
        nonlocal mark
        now = time.process_time()
        spent[stage] += now - mark
        mark = now

    out.mkdir(parents=True, exist_ok=True)
    channels = len(fields[0])
    means: list[NDArray[np.float64]] = []
    histograms = np.zeros((channels, 2**16), dtype=np.int64)
    rules = params.illumination
    for field in fields:
        for channel, path in enumerate(field):
            image = tifffile.imread(path)
            lap("read")
            small = [side // rules.down_scale_factor for side in image.shape]
            reduced = _sk.transform.resize(image, small, mode="reflect", anti_aliasing=True, preserve_range=True)
            if len(means) <= channel:
                means.append(np.zeros(reduced.shape))
            means[channel] += reduced / len(fields)
            histograms[channel] += np.histogram(image, bins=2**16, range=(0, 2**16))[0]
            lap("illumination")
    functions, highest = [], []
    for mean, histogram in zip(means, histograms, strict=True):
        smooth = _sk.filters.median(
            mean.astype(np.uint16), _sk.morphology.disk(rules.median_filter_size // 2), mode="nearest"
        )
        full = _sk.transform.resize(smooth, image.shape, mode="reflect", anti_aliasing=True, preserve_range=True)
        floor = max(float(np.percentile(full, rules.floor_percentile)), 1.0)
        functions.append(np.maximum(full, floor) / floor)
        shares = np.cumsum(histogram) / histogram.sum()
        highest.append(float(np.searchsorted(shares, params.plate_high_percentile / 100, side="right")))
    once = time.process_time() - mark  # for the plate, not for a field
    mark = time.process_time()
    pixels = []
    for number, field in enumerate(fields):
        planes = []
        for channel, path in enumerate(field):
            image = tifffile.imread(path)
            lap("read")
            even = image / functions[channel]
            half = [int(side * params.scaling_factor) for side in image.shape]
            reduced = _sk.transform.resize(even, half, mode="reflect", anti_aliasing=True, preserve_range=True)
            low, high = np.percentile(reduced, (params.low_percentile, params.high_percentile))
            high = min(high, highest[channel])
            plane = np.rint(np.clip((reduced - low) / (high - low), 0, 1) * 255).astype(np.uint8)
            lap("correct")
            _sk.io.imsave(out / f"{number}_{channel}.png", plane, check_contrast=False)
            planes.append(plane)
            lap("compress")
        pixels.append(np.stack(planes))
    seconds = {stage: value / len(fields) for stage, value in spent.items()}
    return ObviousResult(seconds | {"plate_once": once}, pixels)
