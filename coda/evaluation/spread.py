"""Feature spread: 1 when directions are used evenly, 0 when all fields look alike to the extractor."""

import numpy as np

from coda.evaluation.score import Matrix, Score, unit_rows


def feature_spread(features: Matrix) -> Score:
    """Return the mean standard deviation of the centred, length-1 features times the root of the width.

    The collapse indicator of Chen and He (2021). Features are centred on their mean first: pooled tokens share a
    large common part, which would hide the spread of a healthy network.

    Args:
        features: Shape (fields, width).
    """
    x = np.asarray(features, dtype=np.float64)
    if len(x) < 2:
        return Score(float("nan"), 0)
    scale = np.linalg.norm(x, axis=1).mean()
    if scale == 0 or np.linalg.norm(x - x.mean(axis=0), axis=1).mean() < 1e-6 * scale:
        return Score(0.0, len(x))
    rows = unit_rows(x - x.mean(axis=0))
    return Score(float(rows.std(axis=0).mean() * np.sqrt(x.shape[1])), len(x))
