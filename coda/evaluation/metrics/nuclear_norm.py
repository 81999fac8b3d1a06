"""Nuclear norm of the prediction matrix: confidence and dispersion in one number (Deng and others, 2023)."""

import numpy as np

from coda.evaluation.metrics.metric import PREDICTIONS, Metric
from coda.evaluation.metrics.metric_result import Matrix, MetricResult


def nuclear_norm(probabilities: Matrix) -> MetricResult:
    """Return the nuclear norm over its largest possible value, ``|P|_* / sqrt(n min(n, classes))``, 0 to 1.

    High when rows are confident and spread over all classes. Compare it on the same wells only.

    Args:
        probabilities: Shape (fields, classes); rows sum to 1.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if not p.size:
        return MetricResult(float("nan"), 0)
    largest = np.sqrt(len(p) * min(p.shape))
    return MetricResult(float(np.linalg.svd(p, compute_uv=False).sum() / largest), len(p))


NUCLEAR_NORM = Metric(
    name="nuclear_norm",
    says="confidence and variety of the predictions in one number",
    better=1,
    of=lambda batch: nuclear_norm(batch.probabilities),
    computed_on=PREDICTIONS,
    source="Deng et al. 2023",
)
