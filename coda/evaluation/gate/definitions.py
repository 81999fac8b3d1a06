"""The metrics that the gate reads, what a policy makes of each, and the fit scope of every number."""

from collections.abc import Sequence
from typing import Literal

import pandas as pd

from coda.config.policy import GatePolicy
from coda.contracts.gate import Evidence, FitScope, Role
from coda.evaluation.metrics.agreement import AGREEMENT
from coda.evaluation.metrics.cka import CKA_TO_BASELINE
from coda.evaluation.metrics.comparison_groups import comparison_groups
from coda.evaluation.metrics.confidence import MEAN_CONFIDENCE
from coda.evaluation.metrics.control_distance import CONTROL_DISTANCE
from coda.evaluation.metrics.controls import CONTROL_ACCURACY, CONTROL_MAP
from coda.evaluation.metrics.field_spread import FEATURE_SPREAD
from coda.evaluation.metrics.marginal_entropy import MARGINAL_ENTROPY
from coda.evaluation.metrics.metric import FEATURES
from coda.evaluation.metrics.mutual_information import MUTUAL_INFORMATION
from coda.evaluation.metrics.neighbour import NEIGHBOUR
from coda.evaluation.metrics.nuclear_norm import NUCLEAR_NORM
from coda.evaluation.metrics.predictability import BATCH_PREDICTABILITY
from coda.evaluation.metrics.rankme import RANKME
from coda.evaluation.metrics.retrieval import REPLICATE_MAP
from coda.evaluation.metrics.top_class import TOP_CLASS_SHARE
from coda.evaluation.predictions.prediction_levels import TREATED, WELL

CLASS_TOKENS = "features the head reads: class tokens after the candidate's alignment, mean over the crops of a field"

METRICS = (
    AGREEMENT, REPLICATE_MAP, NEIGHBOUR, CONTROL_MAP, CONTROL_ACCURACY, MARGINAL_ENTROPY, TOP_CLASS_SHARE,
    FEATURE_SPREAD, RANKME, MUTUAL_INFORMATION, NUCLEAR_NORM, MEAN_CONFIDENCE, BATCH_PREDICTABILITY, CONTROL_DISTANCE,
    CKA_TO_BASELINE,
)  # fmt: skip
"""Every metric that the gate reads, in the order of its tables."""

BY_NAME = {metric.name: metric for metric in METRICS}

BY_TREATMENT = tuple(metric.name for metric in METRICS if metric.by_treatment)
"""Metrics that fall apart into treatments: what `coda.config.policy.TreatmentMeasure` may name."""


def role_of(measure: str, policy: GatePolicy) -> Role:
    """Return what a measure is for under a policy."""
    if measure == policy.deciding.measure:
        return "decides"
    asked = [guard.otherwise for name, guard in policy.guards.items() if name == measure]
    asked += [item.otherwise for item in policy.references.values() if item.measure == measure]
    if any(otherwise != "advice" for otherwise in asked):
        return "guards"
    return "health" if BY_NAME[measure].has_limit else "advice"


def scopes_of(policy: GatePolicy, *, samples: int, pool: Literal["cls", "mean"] = "mean") -> tuple[FitScope, ...]:
    """Return the fit scope of every measure, in the order of the tables."""
    features = CLASS_TOKENS if pool == "cls" else FEATURES
    bootstrap = f"95 % percentile bootstrap over treatments, {samples} samples"
    deciding = bootstrap
    if policy.deciding.max_error is not None:
        deciding += f"; decided by sign flips of treatments, error {policy.deciding.max_error:g} over all candidates"
    return tuple(
        FitScope(
            measure=item.name,
            role=role_of(item.name, policy),
            says=item.says,
            wells=item.wells,
            computed_on=item.computed_on.replace(FEATURES, features),
            fitted_on=item.fitted_on,
            aggregated=item.aggregated,
            interval=(deciding if item.name == policy.deciding.measure else bootstrap) if item.by_treatment else "none",
        )
        for item in METRICS
    )


def evidence_of(rows: pd.DataFrame, *, align_by: str, align_wells: str) -> Evidence:
    """Return what lies behind the numbers of a batch.

    Args:
        rows: Fields of the batch and of archived batches.
        align_by: `alignment.by`.
        align_wells: `alignment.wells`.
    """
    treated = rows[rows["Metadata_pert_type"].isin(TREATED)]
    controls = rows[rows["Metadata_pert_type"] == "negcon"]
    compared_by, _ = comparison_groups(treated)
    batches = treated["Metadata_Source"].astype(str) + "/" + treated["Metadata_Batch"].astype(str)
    wells = {"all": "all wells", "negcon": "the negative controls"}[align_wells]
    return Evidence(
        compared_by=compared_by,
        batches=tuple(sorted(set(batches))),
        plates=_distinct(treated, WELL[:-1]),
        fields=len(treated),
        wells=_distinct(treated, WELL),
        treatments=_distinct(treated, ["Metadata_Treatment"]),
        positive_controls=_distinct(treated[treated["Metadata_pert_type"] == "poscon"], ["Metadata_Treatment"]),
        negative_control_wells=_distinct(controls, WELL),
        alignment=f"token statistics of {wells} of each {align_by}, archived ones each by their own",
    )


def _distinct(rows: pd.DataFrame, columns: Sequence[str]) -> int:
    return len(rows.drop_duplicates(list(columns)))
