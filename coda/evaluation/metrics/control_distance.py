"""Distance of negative controls between batches: controls are the same everywhere, so what differs is not biology."""

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist

from coda.evaluation.metrics.comparison_groups import comparison_groups
from coda.evaluation.metrics.metric import NOT_COMPUTED, Metric, MetricInputs
from coda.evaluation.metrics.metric_result import Matrix, MetricResult
from coda.evaluation.metrics.mmd import mmd
from coda.evaluation.predictions.prediction_levels import well_features


def control_distance(rows: pd.DataFrame, features: Matrix) -> MetricResult:
    """Return the mean squared maximum mean discrepancy of negative-control wells between batches or plates.

    About 0: the same; towards 2: entirely apart.

    Args:
        rows: Rows of the field index.
        features: Shape (fields, width).

    Returns:
        `n` counts the control wells; 0 with fewer than two groups of two control wells.
    """
    controls = (rows["Metadata_pert_type"] == "negcon").to_numpy()
    if not controls.any():
        return MetricResult(float("nan"), 0)
    own = rows[controls].reset_index(drop=True)
    _, labels = comparison_groups(own)
    wells, values = well_features(own.assign(_group=labels), np.asarray(features)[controls])
    parts = [values[(wells["_group"] == name).to_numpy()] for name in sorted(set(labels))]
    parts = [part for part in parts if len(part) > 1]
    # one kernel width for all pairs: else each comparison would be on its own scale
    width = float(np.median(pdist(values))) if len(values) > 1 else 0.0
    distances = [
        mmd(parts[i], parts[j], bandwidth=width).value for i in range(len(parts)) for j in range(i + 1, len(parts))
    ]
    if not distances:
        return MetricResult(float("nan"), 0)
    return MetricResult(float(np.mean(distances)), sum(len(part) for part in parts))


def _of_controls(batch: MetricInputs) -> MetricResult:
    features = np.asarray(batch.all_features, dtype=np.float64)
    return control_distance(batch.table, features) if batch.all_finite else NOT_COMPUTED


CONTROL_DISTANCE = Metric(
    name="control_distance",
    says="distance of negative controls between batches or plates (0: alike; towards 2: entirely apart)",
    better=-1,
    of=_of_controls,
    wells="negative controls",
    fitted_on="width of the kernel: median distance of these wells",
    aggregated="fields to wells; mean over pairs of batches or plates",
    source="Gretton et al. 2012 (maximum mean discrepancy)",
)
