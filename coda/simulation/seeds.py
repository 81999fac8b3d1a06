"""Random streams by name, so that a value never depends on how many values were drawn before it."""

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator that belongs to a name below a seed.

    The same seed and names give the same stream in any process and in any order of work; another name gives an
    independent one. That is what makes a batch byte-identical whatever the number of workers.

    Args:
        seed: Seed of the experiment, 0 or more.
        names: Path of what is drawn, for example ``"lab_b", "batch_2", "plate_1", "C04", 2, "cells"``.
    """
    path = "\x1f".join(str(name) for name in names)
    words = np.frombuffer(hashlib.sha256(path.encode()).digest()[:16], dtype="<u4")
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, *(int(word) for word in words)])))
