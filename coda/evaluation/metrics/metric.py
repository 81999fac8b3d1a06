"""What a metric is, declared beside its function: gate, report, calibration and documentation read the declaration."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.evaluation.metrics.comparison_groups import comparison_groups
from coda.evaluation.metrics.metric_result import Grouping, Matrix, MetricResult
from coda.evaluation.predictions.prediction_levels import TREATED, probabilities_of, well_features

PREDICTIONS = "probabilities of the frozen head, mean over the crops of a field"
FEATURES = "features the head reads: tokens after the candidate's alignment, mean over tokens and crops of a field"
TREATED_WELLS = "treated wells: compounds and positive controls"
POSITIVE_CONTROLS = "positive controls"
BY_TREATMENT_FROM_WELLS = "fields to wells, wells to treatments, treatments to their mean"
ALL_FIELDS = "all fields at once"

NOT_COMPUTED = MetricResult(float("nan"), 0)


@dataclass(frozen=True)
class MetricInputs:
    """What metrics of one candidate on one batch are computed from; each part is made when it is first asked for.

    Attributes:
        table: Rows of the field index, all wells, with `p_<class>` columns where there are predictions.
        all_features: Shape (fields, width), rows as in `table`.
        baseline_features: The baseline's features of the same fields; None where there are none to compare with.
    """

    table: pd.DataFrame
    all_features: Matrix
    baseline_features: Matrix | None = None

    @cached_property
    def is_treated(self) -> NDArray[np.bool_]:
        """Shape (fields,): fields of compounds and positive controls."""
        return self.table["Metadata_pert_type"].isin(TREATED).to_numpy()

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Rows of the treated fields."""
        return self.table[self.is_treated].reset_index(drop=True)

    @cached_property
    def probabilities(self) -> Matrix:
        """Shape (treated fields, classes)."""
        return probabilities_of(self.rows)

    @cached_property
    def features(self) -> Matrix:
        """Shape (treated fields, width), float64."""
        return np.asarray(self.all_features, dtype=np.float64)[self.is_treated]

    @cached_property
    def fields(self) -> Grouping:
        """Treatment and group (batch, or plate where there is one batch) of each treated field."""
        return Grouping.of(self.rows["Metadata_Treatment"].tolist(), comparison_groups(self.rows)[1])

    @cached_property
    def well_features(self) -> tuple[pd.DataFrame, NDArray[np.float64]]:
        """Treated wells, with the column `_group`, and the mean features of each, shape (wells, width)."""
        return well_features(self.rows.assign(_group=comparison_groups(self.rows)[1]), self.features)

    @cached_property
    def wells(self) -> Grouping:
        """Treatment and group of each treated well."""
        table = self.well_features[0]
        return Grouping.of(table["Metadata_Treatment"].tolist(), table["_group"].tolist())

    @cached_property
    def is_control(self) -> NDArray[np.bool_]:
        """Shape (treated wells,): positive controls."""
        return np.asarray((self.well_features[0]["Metadata_pert_type"] == "poscon").to_numpy(), dtype=bool)

    def result(self, metric: "Metric") -> MetricResult:
        """Return the result of a metric, computed once: others may be parts of it."""
        if metric.name not in self._results:
            self._results[metric.name] = metric.of(self)
        return self._results[metric.name]

    @cached_property
    def _results(self) -> dict[str, MetricResult]:
        return {}

    @property
    def most_classes(self) -> int:
        """Classes that can occur at all: a plate with fewer treatments than classes cannot use them all."""
        return len(self.fields.names)

    @cached_property
    def all_finite(self) -> bool:
        """Whether the features of all wells, negative controls too, are numbers."""
        return bool(np.isfinite(self.all_features).all())


@dataclass(frozen=True)
class Metric:
    """One label-free metric.

    Attributes:
        name: Its name in tables, policies and reports.
        says: What its value says, with its ends.
        better: 1 where more should be better, -1 where less should be; fixed before any figure was looked at.
        of: Computes it.
        quantity: How it is called in a sentence about a gain; needed where it has a value for each treatment.
        by_treatment: Whether it falls apart into treatments, so that a policy may decide or guard by it
            (`coda.config.policy.TreatmentMeasure`).
        wells: Wells that it is computed on.
        computed_on: What of them.
        fitted_on: What is fitted on the way.
        aggregated: From fields to the number.
        has_limit: Whether every policy has an absolute limit of it.
        main: Whether it stands in the first table of a report.
        source: The publication it is from; empty where this project defines it.
    """

    name: str
    says: str
    better: Literal[1, -1]
    of: Callable[[MetricInputs], MetricResult]
    quantity: str = ""
    by_treatment: bool = False
    wells: str = TREATED_WELLS
    computed_on: str = FEATURES
    fitted_on: str = "nothing"
    aggregated: str = ALL_FIELDS
    has_limit: bool = False
    main: bool = False
    source: str = ""

    @property
    def needs_no_model(self) -> bool:
        """Whether it may be asked of any features: no head answers, and each treatment has a value to compare by."""
        return self.by_treatment and self.computed_on == FEATURES
