"""Feature spread of the fields of a batch, as the gate reads it; what it is: `coda.networks.spread`."""

import numpy as np

from coda.evaluation.metrics.metric import Metric
from coda.evaluation.metrics.metric_result import Matrix, MetricResult
from coda.networks import spread


def feature_spread(features: Matrix) -> MetricResult:
    """Return `coda.networks.spread.feature_spread`: 1 when directions are used evenly, 0 when all fields look alike.

    Args:
        features: Shape (fields, width).
    """
    x = np.asarray(features, dtype=np.float64)
    return MetricResult(spread.feature_spread(x), len(x)) if len(x) > 1 else MetricResult(float("nan"), 0)


FEATURE_SPREAD = Metric(
    name="feature_spread",
    says="spread of the features (1 is spread, 0 is collapsed)",
    better=1,
    of=lambda batch: feature_spread(batch.features),
    has_limit=True,
)
