"""Features that need no training: what every candidate's features are compared with (docs/gate.md)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coda.config.policy import Reference
from coda.config.served_params import Views
from coda.errors import IntegrityError, Problem
from coda.networks.extractor import untrained_extractor
from coda.plates.stored import Fields
from coda.training.profiles import measured
from coda.training.tokens import field_features, token_batches

FOLDER = "references"
"""Folder beside the candidates' features with one array for each reference."""

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


def reference_features(
    fields: Fields, config: Mapping[str, Any], params: Views, *, seed: int, pixels: NDArray[np.float32] | None = None
) -> dict[Reference, NDArray[np.float32]]:
    """Return the features of every reference, rows as the fields.

    Args:
        fields: Fields of the batch and of archived batches, with the stains of the extractor.
        config: Configuration of the extractor that is adapted: the untrained one has the same architecture
            and the same token or mean for its feature.
        params: Crops and compute.
        seed: Seed of the untrained extractor's weights.
        pixels: `pixel_statistics` of the fields, where they are known already.
    """
    extractor = untrained_extractor(config, seed=seed)
    untrained = [field_features(tokens, extractor.pool).numpy() for tokens in token_batches(extractor, fields, params)]
    return {
        "pixels": measured(fields, [pixel_statistics])[0] if pixels is None else pixels,
        "untrained": np.concatenate(untrained),
    }


def pixel_statistics(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean, the standard deviation and percentiles of the brightness of each stain, from 0 to 255.

    Args:
        images: Shape (fields, channels, height, width).

    Returns:
        Shape (fields, channels * 9).
    """
    fields, channels = images.shape[:2]
    levels, wanted = np.arange(256.0), np.asarray(PERCENTILES) / 100
    numbers = np.empty((fields, channels, 2 + len(wanted)), dtype=np.float32)
    for field in range(fields):
        for channel in range(channels):
            # 256 counts hold all that is asked for, whatever the size of the picture
            share = np.bincount(images[field, channel].reshape(-1), minlength=256) / images[field, channel].size
            mean = float(share @ levels)
            deviation = float(np.sqrt(share @ (levels - mean) ** 2))
            percentiles = np.searchsorted(np.cumsum(share) + 1e-12, wanted)
            numbers[field, channel] = [mean, deviation, *np.minimum(percentiles, 255)]
    return numbers.reshape(fields, -1)


def write_references(out: Path, features: Mapping[Reference, NDArray[np.float32]]) -> None:
    """Write the references into the folder of features."""
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in features.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)


def read_reference(features: Path, name: Reference, rows: int) -> NDArray[np.float32]:
    """Return the features of one reference.

    Raises:
        IntegrityError: They are missing, or do not belong to the fields.
    """
    path = features / FOLDER / f"{name}.npy"
    try:
        values: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (FileNotFoundError, ValueError) as error:
        found = str(error).splitlines()[0]
    else:
        if values.ndim == 2 and len(values) == rows:
            return values
        found = f"an array of shape {values.shape}"
    problem = Problem(str(path), found, f"features of {rows} fields", "Run the adaptation again.")
    raise IntegrityError(f"The features of the reference {name!r} are not whole.", [problem])
