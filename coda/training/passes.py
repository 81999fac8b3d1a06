"""Passes over labelled samples: epochs follow each other without a gap, each in its own random order.

The one definition of an epoch for everything that learns from labels: batch after batch of full size, of which the
last one of an epoch continues in the next. So ``epochs * samples / batch_size`` iterations, as `length_of` counts them,
see every sample as often as there are epochs (once more or less where that is no whole number).
"""

from torch import Tensor, randperm

from coda.training.randomness import generator


def passes(iteration: int, size: int, count: int, *, seed: int, use: str) -> list[tuple[int, Tensor]]:
    """Return the samples of one batch.

    Args:
        iteration: Number of the batch, from 0.
        size: Samples in a batch.
        count: Samples in an epoch.
        seed: Seed of the run.
        use: Name of the use, for its random numbers.

    Returns:
        Epoch and samples, for each epoch that the batch has a part of, in order.
    """
    first, last = iteration * size, (iteration + 1) * size
    parts = []
    for epoch in range(first // count, (last - 1) // count + 1):
        order = randperm(count, generator=generator(seed, use, epoch))
        parts.append((epoch, order[max(first - epoch * count, 0) : last - epoch * count]))
    return parts
