"""What every measure says, on which wells it is computed, and how it is put together: the fit scope of each number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from coda.config.policy import GatePolicy
from coda.contracts.gate import Evidence, FitScope, Role
from coda.evaluation.metrics.comparison_groups import comparison_groups
from coda.evaluation.predictions.prediction_levels import TREATED, WELL

PREDICTIONS = "probabilities of the frozen head, mean over the crops of a field"
FEATURES = "features the head reads: tokens after the candidate's alignment, mean over tokens and crops of a field"
CLASS_TOKENS = "features the head reads: class tokens after the candidate's alignment, mean over the crops of a field"
TREATED_WELLS = "treated wells: compounds and positive controls"
POSITIVE = "positive controls"
NOTHING = "nothing"
BY_TREATMENT_FROM_WELLS = "fields to wells, wells to treatments, treatments to their mean"
ALL_FIELDS = "all fields at once"


@dataclass(frozen=True)
class Definition:
    """Fit scope of one measure, apart from its role, which the policy gives it."""

    says: str
    wells: str = TREATED_WELLS
    computed_on: str = FEATURES
    fitted_on: str = NOTHING
    aggregated: str = ALL_FIELDS
    by_treatment: bool = False


DEFINITIONS = {
    "agreement": Definition(
        "agreement of one compound's predictions across batches or plates, minus that of other compounds",
        computed_on=PREDICTIONS, aggregated="pairs of fields to treatments, treatments to their mean",
        by_treatment=True,
    ),
    "replicate_map": Definition(
        "how well wells of one compound find each other across batches or plates (0 is chance)",
        aggregated=BY_TREATMENT_FROM_WELLS, by_treatment=True,
    ),
    "neighbour": Definition(
        "share of wells whose nearest neighbour on another batch or plate has the same compound",
        aggregated=BY_TREATMENT_FROM_WELLS, by_treatment=True,
    ),
    "control_map": Definition(
        "how well wells of a positive control find each other across batches or plates (0 is chance)",
        wells=f"{POSITIVE}, retrieved among all treated wells", aggregated=BY_TREATMENT_FROM_WELLS, by_treatment=True,
    ),
    "control_accuracy": Definition(
        "share of positive-control wells told apart from the other positive controls on another batch or plate",
        wells=POSITIVE, aggregated=BY_TREATMENT_FROM_WELLS, by_treatment=True,
    ),
    "marginal_entropy": Definition(
        "how evenly the mechanisms are predicted (1 is evenly, 0 is one mechanism only)", computed_on=PREDICTIONS
    ),
    "top_class_share": Definition(
        "share of fields that receive the most popular mechanism", computed_on=PREDICTIONS
    ),
    "feature_spread": Definition("spread of the features (1 is spread, 0 is collapsed)"),
    "rankme": Definition("number of directions the features use"),
    "mutual_information": Definition(
        "how far a compound's predictions are from the mean prediction (1: sure and varied; 0: the same for all)",
        computed_on=PREDICTIONS, aggregated="fields to treatments, treatments to their mean", by_treatment=True,
    ),
    "nuclear_norm": Definition("confidence and variety of the predictions in one number", computed_on=PREDICTIONS),
    "mean_confidence": Definition("mean highest probability", computed_on=PREDICTIONS),
    "batch_predictability": Definition(
        "how well the batch or plate of a well can be read from its features (1 is always, 0 is chance, below 0 where "
        "an alignment evened out the batches)",
        wells="all wells, negative controls too",
        fitted_on="a ridge classifier on four fifths of the treatments, read on the other fifth, five times",
        aggregated="fields to wells; balanced accuracy over batches or plates, rescaled by chance",
    ),
    "control_distance": Definition(
        "distance of negative controls between batches or plates (0: alike; towards 2: entirely apart)",
        wells="negative controls", fitted_on="width of the kernel: median distance of these wells",
        aggregated="fields to wells; mean over pairs of batches or plates",
    ),
    "cka_to_baseline": Definition(
        "how much of the baseline's geometry of features is left (1: all of it, nothing was learned; 0: none)",
        computed_on=f"{FEATURES}, and the baseline's",
    ),
}  # fmt: skip
"""Name of each measure -> its fit scope."""

MEASURES = {name: definition.says for name, definition in DEFINITIONS.items()}
"""Name of each measure -> what it says, for reports."""

BY_TREATMENT = tuple(name for name, definition in DEFINITIONS.items() if definition.by_treatment)
"""Measures that fall apart into treatments: what `coda.config.policy.TreatmentMeasure` may name."""

HEALTH = ("marginal_entropy", "top_class_share", "feature_spread", "rankme")
"""Measures with an absolute limit in every policy."""


def role_of(measure: str, policy: GatePolicy) -> Role:
    """Return what a measure is for under a policy."""
    if measure == policy.deciding.measure:
        return "decides"
    asked = [guard.otherwise for name, guard in policy.guards.items() if name == measure]
    asked += [item.otherwise for item in policy.references.values() if item.measure == measure]
    if any(otherwise != "advice" for otherwise in asked):
        return "guards"
    return "health" if measure in HEALTH else "advice"


def scopes_of(policy: GatePolicy, *, samples: int, pool: Literal["cls", "mean"] = "mean") -> tuple[FitScope, ...]:
    """Return the fit scope of every measure, in the order of the tables.

    Args:
        policy: Gives each measure its role.
        samples: Bootstrap samples over treatments.
        pool: What of the tokens the features are.
    """
    features = CLASS_TOKENS if pool == "cls" else FEATURES
    bootstrap = f"95 % percentile bootstrap over treatments, {samples} samples"
    deciding = bootstrap
    if policy.deciding.max_error is not None:
        deciding += f"; decided by sign flips of treatments, error {policy.deciding.max_error:g} over all candidates"
    return tuple(
        FitScope(
            measure=name,
            role=role_of(name, policy),
            says=item.says,
            wells=item.wells,
            computed_on=item.computed_on.replace(FEATURES, features),
            fitted_on=item.fitted_on,
            aggregated=item.aggregated,
            interval=(deciding if name == policy.deciding.measure else bootstrap) if item.by_treatment else "none",
        )
        for name, item in DEFINITIONS.items()
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
