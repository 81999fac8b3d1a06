"""How a figure grows with the plates of a batch: 1 is in step with them, 2 with their square."""

import math
from collections.abc import Sequence


def last_doubling(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Return the exponent between the two largest sizes: ``log(y2/y1) / log(x2/x1)``.

    Returns:
        None with fewer than two sizes, or where a value is not positive: nothing grows out of nothing.
    """
    pairs = sorted(zip(sizes, values, strict=True))[-2:]
    if len(pairs) < 2 or any(x <= 0 or y <= 0 for x, y in pairs) or pairs[0][0] == pairs[1][0]:
        return None
    (x1, y1), (x2, y2) = pairs
    return math.log(y2 / y1) / math.log(x2 / x1)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Return the slope of log y over log x by least squares; None as with `last_doubling`."""
    pairs = [(math.log(x), math.log(y)) for x, y in zip(sizes, values, strict=True) if x > 0 and y > 0]
    if len(pairs) < max(2, len(sizes)) or len({x for x, _ in pairs}) < 2:
        return None
    mean_x, mean_y = (sum(pair[at] for pair in pairs) / len(pairs) for at in (0, 1))
    return sum((x - mean_x) * (y - mean_y) for x, y in pairs) / sum((x - mean_x) ** 2 for x, _ in pairs)


def each_more(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Return what one more of x costs, between the smallest and the largest size; None with one size."""
    pairs = sorted(zip(sizes, values, strict=True))
    if len(pairs) < 2 or pairs[0][0] == pairs[-1][0]:
        return None
    return (pairs[-1][1] - pairs[0][1]) / (pairs[-1][0] - pairs[0][0])
