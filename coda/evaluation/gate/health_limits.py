"""Health of a candidate: absolute limits that no gain can buy off."""

import math

from coda.config.policy import Health
from coda.evaluation.gate.measures import CandidateMeasures
from coda.evaluation.percentages import against


def health_reasons(candidate: CandidateMeasures, baseline: CandidateMeasures, policy: Health, source: str) -> list[str]:
    """Return why a candidate may not serve, as sentences; empty when it is healthy.

    Args:
        candidate: Its numbers.
        baseline: Numbers of the baseline, the measure for the rank of the features.
        policy: Limits.
        source: Source of the batch, which may have limits of its own.
    """
    if not candidate.finite:
        return ["Some of its predictions or features are no numbers (NaN or infinite)."]
    value = {name: measure.value for name, measure in candidate.measures.items()}
    reasons = list(candidate.alarms)
    if not value:
        return [*reasons, "The batch has no treated well, so nothing can be judged."]
    entropy = value.get("marginal_entropy")
    evenness = policy.least_evenness(source)
    if entropy is not None and entropy < evenness:
        reasons.append(f"It predicts few mechanisms only: evenness {entropy:.2f}, at least {evenness:.2f} needed.")
    share = value["top_class_share"]
    # on a plate whose compounds cannot fill the classes one mechanism may rightly be frequent; then entropy is absent
    largest = policy.largest_share(candidate.classes, source)
    if entropy is not None and share > largest:
        takes, most = against(share, largest)
        reasons.append(f"One mechanism takes {takes} of the fields; at most {most} is accepted.")
    spread = value["feature_spread"]
    if spread < policy.min_feature_spread:
        reasons.append(
            f"All fields look alike to it: feature spread {spread:.2f}, "
            f"at least {policy.min_feature_spread:.2f} needed."
        )
    reference = baseline.measures.get("rankme")
    if reference is not None and math.isfinite(reference.value):
        share_of_rank = value["rankme"] / max(reference.value, 1e-12)
        if share_of_rank < policy.min_rank_share:
            uses, least = against(share_of_rank, policy.min_rank_share)
            reasons.append(
                f"Its features use {value['rankme']:.1f} directions, {uses} of the baseline's; at least {least} needed."
            )
    return reasons
