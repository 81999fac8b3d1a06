"""Numbers of whole pictures: each field is read once, whatever is measured of it, by several processes in turns."""

import os
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coda.errors import ConfigError, Problem
from coda.networks.profile import Profile, profile_of
from coda.plates.fieldset import FieldSet
from coda.plates.stored import Fields
from coda.training.distributed import by_turns

AT_ONCE = 256
"""Pictures in memory at once of those that stay in plate stores."""

Measure = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Turns pictures (fields, channels, height, width) into numbers (fields, width)."""


def measured(fields: Fields, measures: Sequence[Measure]) -> list[NDArray[np.float32]]:
    """Measure the pictures of all fields in one pass over the pixels.

    Returns:
        For each measure its numbers, shape (fields, width), rows as the fields.
    """

    def of(rows: NDArray[np.intp]) -> Tensor:
        images = _images(fields, rows)
        found = [measure(images) for measure in measures]
        return torch.from_numpy(np.concatenate(found, axis=1))[None]

    parts = np.array_split(np.arange(len(fields)), max(1, -(-len(fields) // AT_ONCE)))
    joined = np.concatenate(
        [numbers[0].numpy() for _, numbers in by_turns((rows[0], partial(of, rows)) for rows in parts)]
    )
    pixel = np.zeros((1, len(fields.channels), 1, 1), dtype=np.uint8)
    widths = [measure(pixel).shape[1] for measure in measures]
    return np.split(joined, np.cumsum(widths)[:-1], axis=1)


def profiles(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the profile of each picture, float32, shape (fields, width); summed up in float64."""
    width = Profile({"channels": [str(number) for number in range(images.shape[1])]}).width
    found = np.empty((len(images), width), dtype=np.float32)
    for number, image in enumerate(images):
        found[number] = profile_of(image)
    return found


def extract_profiles(front: Profile, fields: Fields) -> Tensor:
    """Return the profiles of fields as tokens, float32, shape (fields, 1, 1, width): one crop, one token.

    Raises:
        ConfigError: There are no fields, or their stains are not the profile's.
    """
    if tuple(fields.channels) != front.channels or not len(fields):
        found = ", ".join(fields.channels) if len(fields) else "no field"
        remedy = "Load the fields with the stains of the head's record, in its order."
        problem = Problem("fields", found, ", ".join(front.channels), remedy)
        raise ConfigError("These fields cannot be measured.", [problem])
    return as_tokens(measured(fields, [profiles])[0])


def as_tokens(numbers: NDArray[np.float32]) -> Tensor:
    """Return profiles (fields, width) as tokens (fields, 1, 1, width)."""
    return torch.from_numpy(np.ascontiguousarray(numbers))[:, None, None]


def _images(fields: Fields, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
    if isinstance(fields, FieldSet):
        return fields.take(rows).images
    return fields.read(rows.tolist(), threads=min(8, os.cpu_count() or 1))
