"""Example fields as people view them: stains in colour, before and after illumination correction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coda.monitoring.report.data_uris import Picture, from_pixels

MAX_SIDE_PX = 256
GAP_PX = 4
LOW, HIGH = 1.0, 99.7


@dataclass(frozen=True)
class Examples:
    """A few fields of one plate.

    Attributes:
        plate: The plate.
        names: What each field is called: ``B03, site 1``.
        channels: Stains along the second axis.
        before: Raw, any number type, shape (fields, channels, height, width).
        after: Corrected and rescaled, of the same kind.
    """

    plate: str
    names: tuple[str, ...]
    channels: tuple[str, ...]
    before: NDArray[np.generic]
    after: NDArray[np.generic]


@dataclass(frozen=True)
class ExamplePictures:
    """The pictures of one plate: one of each field before and after, and the stains of the first one apart."""

    plate: str
    fields: tuple[tuple[str, Picture, Picture], ...]
    stains: Picture
    channels: tuple[str, ...]


def read_examples(folder: Path, most: int) -> list[Examples]:
    """Read the example fields of a batch folder, at most so many plates, in the order of their names."""
    found = []
    for path in sorted((folder / "examples").glob("*.npz"))[:most]:
        with np.load(path, allow_pickle=False) as arrays:
            # image_id is source/batch/plate/well/site
            places = [str(name).split("/")[-2:] for name in arrays["image_id"].tolist()]
            names = tuple(f"{well}, site {site}" for well, site in places)
            channels = tuple(str(stain) for stain in arrays["channels"].tolist())
            found.append(Examples(path.stem, names, channels, arrays["raw"], arrays["corrected"]))
    return [examples for examples in found if examples.names]


def draw_examples(
    examples: Examples, tints: Mapping[str, tuple[float, float, float]], fields: int = 2
) -> ExamplePictures:
    """Draw the first fields of a plate, each channel in its light.

    Each stain is stretched between fixed percentiles of the shown picture, so that what differs between before and
    after is the evenness of the light, not its strength.
    """
    drawn = []
    for row, name in enumerate(examples.names[:fields]):
        pair = [
            from_pixels(
                composite(images[row], examples.channels, tints),
                f"Plate {examples.plate}, well {name}, {when}, stains {', '.join(examples.channels)} in colour",
            )
            for when, images in (("as delivered", examples.before), ("as stored", examples.after))
        ]
        drawn.append((name, pair[0], pair[1]))
    strip = from_pixels(
        stain_strip(examples.before[0], examples.after[0]),
        f"Plate {examples.plate}, well {examples.names[0]}: each stain alone, {', '.join(examples.channels)} from left "
        "to right, as delivered above and as stored below",
    )
    return ExamplePictures(examples.plate, tuple(drawn), strip, examples.channels)


def composite(
    image: NDArray[np.generic], channels: Sequence[str], tints: Mapping[str, tuple[float, float, float]]
) -> NDArray[np.uint8]:
    """Add up the stains in their colours.

    Args:
        image: Shape (channels, height, width), any number type.
        channels: Name of each channel.
        tints: Channel -> red, green and blue of its light.

    Returns:
        uint8, shape (height, width, 3), at most `MAX_SIDE_PX` a side.
    """
    light = np.zeros((*_reduced(image[0]).shape, 3))
    for plane, stain in zip(image, channels, strict=True):
        light += stretched(_reduced(plane))[..., None] * np.array(tints[stain])
    return _bytes(light)


def stain_strip(before: NDArray[np.generic], after: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Put the stains side by side in grey, before above after; shape (channels, height, width) each."""
    rows = [np.stack([stretched(_reduced(plane, side=128)) for plane in image]) for image in (before, after)]
    height = max(row.shape[1] for row in rows)
    width = max(row.shape[2] for row in rows)
    canvas = np.ones((2 * height + GAP_PX, rows[0].shape[0] * (width + GAP_PX) - GAP_PX))
    for line, row in enumerate(rows):
        for column, plane in enumerate(row):
            top, left = line * (height + GAP_PX), column * (width + GAP_PX)
            canvas[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
    return _bytes(np.repeat(canvas[..., None], 3, axis=2))


def stretched(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the picture between its low and high percentile as 0 to 1."""
    low, high = np.percentile(plane, [LOW, HIGH])
    return np.asarray(np.clip((plane - low) / max(float(high - low), 1e-9), 0.0, 1.0))


def _reduced(plane: NDArray[np.generic], side: int = MAX_SIDE_PX) -> NDArray[np.float64]:
    image = np.asarray(plane, dtype=np.float64)
    factor = -(-max(image.shape) // side)
    if factor == 1:
        return image
    height, width = image.shape[0] // factor * factor, image.shape[1] // factor * factor
    blocks = image[:height, :width].reshape(height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _bytes(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(np.clip(image, 0.0, 1.0) * 255), dtype=np.uint8)
