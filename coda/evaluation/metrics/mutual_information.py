"""Mutual information of fields and predicted classes: confident on each field, varied over all of them."""

from collections.abc import Sequence

import numpy as np

from coda.evaluation.metrics.metric import PREDICTIONS, Metric
from coda.evaluation.metrics.metric_result import Grouping, Matrix, MetricResult, by_treatment


def mutual_information(
    probabilities: Matrix, treatments: Sequence[str] | None = None, *, at_most: int | None = None
) -> MetricResult:
    """Return ``H(mean p) - mean H(p)`` over the logarithm of the number of classes, 0 to 1.

    0 for a model that says the same of every field, whether sure or not; 1 where every prediction is certain and all
    classes occur equally often. Confidence alone raises it, right or wrong, and a wrong plate map does not lower it.

    It is the mean over fields of the divergence of their prediction from the mean prediction, ``KL(p_i | mean p)``, so
    that it falls apart into treatments.

    Args:
        probabilities: Shape (fields, classes); rows sum to 1.
        treatments: Treatment of each field. With them the score is the mean over treatments, and has each one's value.
        at_most: Number of classes that can occur at all, when fewer than the head has; values are cut at 1.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    classes = p.shape[1] if at_most is None else min(p.shape[1], at_most)
    if p.size == 0 or classes < 2 or not np.isfinite(p).all():
        return MetricResult(float("nan"), 0)
    mean = p.mean(axis=0)
    ratio = np.divide(p, mean, out=np.ones_like(p), where=p > 0)
    values = np.minimum((p * np.log(ratio)).sum(axis=1) / np.log(classes), 1.0)
    if treatments is None:
        return MetricResult(float(values.mean()), len(p))
    return MetricResult.over_treatments(by_treatment(values, Grouping.of(treatments, treatments)))


MUTUAL_INFORMATION = Metric(
    name="mutual_information",
    says="how far a compound's predictions are from the mean prediction (1: sure and varied; 0: the same for all)",
    better=1,
    of=lambda batch: mutual_information(
        batch.probabilities, batch.rows["Metadata_Treatment"].tolist(), at_most=batch.most_classes
    ),
    quantity="information of the predictions about the compound",
    by_treatment=True,
    computed_on=PREDICTIONS,
    aggregated="fields to treatments, treatments to their mean",
)
