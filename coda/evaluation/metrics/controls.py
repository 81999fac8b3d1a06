"""Positive controls: compounds whose identity is known on every plate, so losing them is a loss of biology."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from coda.evaluation.metrics.metric import BY_TREATMENT_FROM_WELLS, POSITIVE_CONTROLS, Metric, MetricInputs
from coda.evaluation.metrics.metric_result import Grouping, Matrix, MetricResult
from coda.evaluation.metrics.neighbour import neighbour_accuracy
from coda.evaluation.metrics.retrieval import REPLICATE_MAP


def control_map(retrieval: MetricResult, controls: Collection[str]) -> MetricResult:
    """Return how well wells of the positive controls are retrieved from other groups, among all treated wells.

    Args:
        retrieval: `coda.evaluation.metrics.retrieval.replicate_map` of all treated wells.
        controls: Treatments that are positive controls.

    Returns:
        Their part of it: 0 is chance, 1 is perfect.
    """
    return MetricResult.over_treatments(
        {name: value for name, value in retrieval.by_treatment.items() if name in controls}
    )


def control_accuracy(features: Matrix, design: Grouping, controls: NDArray[np.bool_]) -> MetricResult:
    """Return the share of positive-control wells that are distinguished from the other positive controls.

    The nearest neighbour among the control wells of other groups must be the same control.

    Args:
        features: Shape (wells, width), treated wells.
        design: Treatment and group of each well.
        controls: Shape (wells,), which of them are positive controls.

    Returns:
        One value for each control treatment; `n` is 0 with fewer than two of them, since one is never confused.
    """
    kept = np.unique(design.treatment[controls])
    if len(kept) < 2:
        return MetricResult(float("nan"), 0)
    names = [design.names[k] for k in design.treatment[controls]]
    own = Grouping.of(names, [str(k) for k in design.group[controls]])
    return neighbour_accuracy(np.asarray(features)[controls], own)


def _control_map(batch: MetricInputs) -> MetricResult:
    controls = set(batch.well_features[0]["Metadata_Treatment"][batch.is_control])
    return control_map(batch.result(REPLICATE_MAP), controls)


CONTROL_MAP = Metric(
    name="control_map",
    says="how well wells of a positive control find each other across batches or plates (0 is chance)",
    better=1,
    of=_control_map,
    quantity="retrieval of positive controls",
    by_treatment=True,
    wells=f"{POSITIVE_CONTROLS}, retrieved among all treated wells",
    aggregated=BY_TREATMENT_FROM_WELLS,
    main=True,
)

CONTROL_ACCURACY = Metric(
    name="control_accuracy",
    says="share of positive-control wells distinguished from the other positive controls on another batch or plate",
    better=1,
    of=lambda batch: control_accuracy(batch.well_features[1], batch.wells, batch.is_control),
    quantity="share of positive controls told apart",
    by_treatment=True,
    wells=POSITIVE_CONTROLS,
    aggregated=BY_TREATMENT_FROM_WELLS,
    main=True,
)
