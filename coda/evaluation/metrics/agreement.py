"""Cross-batch agreement: do predictions of one compound agree with each other more than with other compounds?"""

import numpy as np

from coda.evaluation.metrics.metric import PREDICTIONS, Metric
from coda.evaluation.metrics.metric_result import Grouping, Matrix, MetricResult


def agreement(probabilities: Matrix, design: Grouping) -> MetricResult:
    r"""Return the agreement of one treatment's predictions across groups, minus that with other treatments.

    The agreement of two fields is ``sum_k p_k q_k``: the probability that labels drawn from both predictions are the
    same. For every treatment it is averaged over all pairs of its fields from *different* groups (batches, or plates
    where there is one batch), and the mean over pairs with fields of other treatments from different groups is
    subtracted. A model that predicts one class everywhere, or nothing at all, scores 0; a model that reads the
    staining of the plate instead of the treatment scores 0 or less. Needs no mechanism of action (decision 0006).

    Args:
        probabilities: Shape (fields, classes); rows sum to 1.
        design: Treatment and group of each field, without negative controls.

    Returns:
        One value for each treatment seen in two groups or more, between -1 and 1; `n` counts these treatments.

    Example:
        >>> from coda.evaluation.metrics.metric_result import Grouping
        >>> design = Grouping.of(["a", "b", "a", "b"], ["batch 1", "batch 1", "batch 2", "batch 2"])
        >>> agreement(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), design).value
        1.0
        >>> agreement(np.full((4, 2), 0.5), design).value
        0.0
    """
    p = np.asarray(probabilities, dtype=np.float64)
    treatments, groups = len(design.names), design.groups
    sums = np.zeros((treatments, groups, p.shape[1]))
    np.add.at(sums, (design.treatment, design.group), p)
    counts = np.zeros((treatments, groups))
    np.add.at(counts, (design.treatment, design.group), 1.0)

    own, own_count = sums.sum(axis=1), counts.sum(axis=1)
    same = (own**2).sum(axis=1) - (sums**2).sum(axis=(1, 2))
    same_pairs = own_count**2 - (counts**2).sum(axis=1)
    # fields of other treatments in other groups: all - own group - own treatment + what was taken off twice
    others = sums.sum(axis=(0, 1)) - sums.sum(axis=0)[None] - own[:, None] + sums
    others_count = counts.sum() - counts.sum(axis=0)[None] - own_count[:, None] + counts
    other = (sums * others).sum(axis=(1, 2))
    other_pairs = (counts * others_count).sum(axis=1)
    return MetricResult.over_treatments(
        {
            name: float(same[k] / same_pairs[k] - other[k] / other_pairs[k])
            for k, name in enumerate(design.names)
            if same_pairs[k] > 0 and other_pairs[k] > 0
        }
    )


AGREEMENT = Metric(
    name="agreement",
    says="agreement of one compound's predictions across batches or plates, minus that of other compounds",
    better=1,
    of=lambda batch: agreement(batch.probabilities, batch.fields),
    quantity="agreement of one compound's predictions",
    by_treatment=True,
    computed_on=PREDICTIONS,
    aggregated="pairs of fields to treatments, treatments to their mean",
    main=True,
)
