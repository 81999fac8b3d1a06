"""Random numbers by name and position instead of by history: the key to exact resume.

Every draw comes from a generator made of the run's seed, the name of the use, and the epoch or iteration. A run that
is stopped and started again needs no stored random state to draw what it would have drawn.
"""

import zlib

import numpy as np
import torch


def derived_seed(seed: int, use: str, position: int) -> int:
    """Return a 63-bit seed for one use of randomness at one epoch or iteration."""
    state = np.random.SeedSequence([seed, zlib.crc32(use.encode()), position]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def generator(seed: int, use: str, position: int) -> torch.Generator:
    """Return torch's CPU generator for one use of randomness."""
    return torch.Generator().manual_seed(derived_seed(seed, use, position))
