"""Linear CKA between layers of two networks, unbiased and by minibatch (Nguyen and others, 2021).

HSIC is estimated on every minibatch by the unbiased estimator of Song and others (2012), and the three HSIC terms are
summed over minibatches before they are divided. Unlike a mean of ratios, this is consistent for any batch size.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.metric_result import Matrix

SMALLEST_BATCH = 4
"""The unbiased estimator divides by n - 3."""


def unbiased_hsic(k: Matrix, other: Matrix) -> float:
    """Return HSIC_1 of two Gram matrices (Song and others, 2012, equation 5); it may be negative.

    Args:
        k: Shape (n, n), symmetric, n at least 4; its diagonal is not used.
        other: Likewise, of the same n samples.

    Raises:
        ValueError: There are fewer than 4 samples.
    """
    count = len(k)
    if count < SMALLEST_BATCH:
        message = f"the unbiased estimator needs at least {SMALLEST_BATCH} samples, not {count}"
        raise ValueError(message)
    first, second = (_without_diagonal(matrix) for matrix in (k, other))
    trace = float((first * second).sum())
    sums = float(first.sum()) * float(second.sum()) / ((count - 1) * (count - 2))
    cross = 2 * float(first.sum(axis=0) @ second.sum(axis=0)) / (count - 2)
    return (trace + sums - cross) / (count * (count - 3))


CONSTANT = 1e-12
"""Share of the squared length below which variation is rounding of float32."""


def gram(features: Matrix) -> NDArray[np.float64]:
    """Return the linear Gram matrix of features (n, ...), each sample flattened, in float64.

    Features are centred first, which the estimator does not see but rounding does; features that do not vary give
    zeros.
    """
    flat = np.asarray(features, dtype=np.float64).reshape(len(features), -1)
    centred = flat - flat.mean(axis=0)
    if np.square(centred).sum() <= CONSTANT * np.square(flat).sum():
        return np.zeros((len(flat), len(flat)))
    product: NDArray[np.float64] = centred @ centred.T
    return product


class LayerCka:
    """Sums the HSIC terms of every pair of layers over minibatches of the same fields."""

    def __init__(self, first: int, second: int) -> None:
        """Start with nothing.

        Args:
            first: Layers of the first network.
            second: Layers of the second one.
        """
        self._cross = np.zeros((first, second))
        self._first, self._second = np.zeros(first), np.zeros(second)
        self.fields = 0

    def add(self, first: Sequence[Matrix], second: Sequence[Matrix]) -> None:
        """Add one minibatch.

        Args:
            first: Features of each layer of the first network, (n, ...), n at least 4.
            second: Features of each layer of the second one, of the same fields in the same order.

        Raises:
            ValueError: There are fewer than 4 fields.
        """
        grams = [[gram(features) for features in layers] for layers in (first, second)]
        for row, k in enumerate(grams[0]):
            self._first[row] += unbiased_hsic(k, k)
            for column, other in enumerate(grams[1]):
                self._cross[row, column] += unbiased_hsic(k, other)
        for column, other in enumerate(grams[1]):
            self._second[column] += unbiased_hsic(other, other)
        self.fields += len(first[0])

    def values(self) -> NDArray[np.float64]:
        """Return the CKA of every pair of layers, shape (first, second); NaN where a layer never varied."""
        scale = np.sqrt(np.maximum(self._first, 0)[:, None] * np.maximum(self._second, 0)[None, :])
        found: NDArray[np.float64] = np.divide(
            self._cross, scale, out=np.full_like(self._cross, np.nan), where=scale > 0
        )
        return found


def _without_diagonal(matrix: Matrix) -> NDArray[np.float64]:
    copy = np.array(matrix, dtype=np.float64)
    np.fill_diagonal(copy, 0.0)
    return copy
