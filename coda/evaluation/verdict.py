"""The gate's sentences: what was decided and why, for a scientist who never saw the code."""

from collections.abc import Iterator, Sequence

from coda.config.params import Gate
from coda.contracts.gate import CandidateScore, Measure
from coda.evaluation.measures import CandidateMeasures

WAYS = {
    "unadapted": "the model as it is",
    "aligned": "the model as it is, on features standardised for this batch",
    "coral": "the model as it is, on features aligned with the source's statistics",
    "coda": "the model adapted to this batch",
    "coda+aligned": "the model adapted to this batch, on standardised features",
    "coda+coral": "the model adapted to this batch, on features aligned with the source's statistics",
    "oda": "the model adapted to this batch without pairs",
    "oda+aligned": "the model adapted to this batch without pairs, on standardised features",
    "oda+coral": "the model adapted to this batch without pairs, on features aligned with the source's statistics",
}
"""Candidate -> how it is called in a sentence."""

QUANTITIES = {
    "agreement": "agreement of one compound's predictions",
    "replicate_map": "retrieval of a compound's replicates",
    "neighbour": "share of wells whose nearest neighbour is the same compound",
}

FEW_TREATMENTS = 10
"""Below this number of treatments an interval over treatments says little (advice only)."""

NOTABLE_FALL = 0.05
"""A fall of a measure that did not decide is mentioned from here on (advice only)."""


def way(name: str) -> str:
    """Return how a candidate is called in a sentence, with its name."""
    return f"{WAYS[name]} ({name})" if name in WAYS else name


def gain_text(gain: Measure) -> str:
    """Return a gain with its interval: '+0.12 (95 % interval +0.08 to +0.16, 24 compounds)'."""
    return f"{gain.value:+.2f} (95 % interval {gain.low or 0:+.2f} to {gain.high or 0:+.2f}, {gain.n} compounds)"


def released_sentence(source: str, batch: str, chosen: CandidateMeasures, score: CandidateScore, policy: Gate) -> str:
    """Say that a candidate is released, and what it gained."""
    quantity, across = QUANTITIES[policy.deciding_measure], _across(chosen)
    gained = f" changed by {gain_text(score.gain)}" if score.gain else " could be measured"
    return (
        f"{_capital(way(chosen.name))} serves {source}/{batch}: the {quantity} {across}{gained} "
        f"compared with {policy.baseline}, and all health checks passed."
    )


def kept_sentence(
    source: str, batch: str, baseline: CandidateMeasures, scores: Sequence[CandidateScore], policy: Gate
) -> str:
    """Say that nothing new serves, and why."""
    quantity = QUANTITIES[policy.deciding_measure]
    if not baseline.by_treatment.get(policy.deciding_measure):
        why = f"no compound was seen on two batches or plates, so the {quantity} cannot be compared"
    else:
        rivals = [score for score in scores if score.gain is not None and score.healthy]
        best = max(rivals, key=lambda score: score.gain.value if score.gain else 0.0, default=None)
        why = f"no healthy candidate is better than {baseline.name} in the {quantity} {_across(baseline)}"
        if best is not None and best.gain is not None:
            why += f"; the closest, {best.name}, changed it by {gain_text(best.gain)}"
    return f"What served {source} before keeps serving, now also {source}/{batch}: {why}."


def refused_sentence(source: str, batch: str, baseline: CandidateScore) -> str:
    """Say that nothing may serve the batch."""
    reasons = " ".join(baseline.health_reasons) or "It is not healthy."
    return (
        f"No predictions are given for {source}/{batch}: {way(baseline.name)} is not fit for it and no candidate is "
        f"both healthy and better. {reasons}"
    )


def advice_for(
    candidates: Sequence[CandidateMeasures], scores: Sequence[CandidateScore], chosen: str | None, policy: Gate
) -> Iterator[str]:
    """Yield remarks that did not decide: for the person who reads the report."""
    measured = {candidate.name: candidate for candidate in candidates}
    base = measured[policy.baseline]
    n = len(base.by_treatment.get(policy.deciding_measure, {}))
    if 0 < n < FEW_TREATMENTS:
        yield f"Only {n} compounds were seen on two batches or plates; the intervals are wide."
    if base.compared_by == "plate":
        yield "There is no earlier batch of this source yet: replicates were compared across plates of this batch."
    if "marginal_entropy" not in base.measures and base.measures:
        yield "The batch has a single compound, so the evenness of the predicted mechanisms was not checked."
    for score in scores:
        if not score.healthy:
            yield f"{score.name} was not considered: {' '.join(score.health_reasons)}"
    if chosen is not None and chosen != policy.baseline:
        yield from _about_the_chosen(measured[chosen], base, scores, policy)


def _about_the_chosen(
    chosen: CandidateMeasures, base: CandidateMeasures, scores: Sequence[CandidateScore], policy: Gate
) -> Iterator[str]:
    for name in ("replicate_map", "neighbour"):
        if name != policy.deciding_measure and name in chosen.measures and name in base.measures:
            change = chosen.measures[name].value - base.measures[name].value
            if change < -NOTABLE_FALL:
                yield f"The {QUANTITIES[name]} fell by {-change:.2f}: look at the embedding before relying on it."
    gains = {score.name: score.gain.value for score in scores if score.gain and score.healthy}
    best = max(gains, key=lambda name: gains[name])
    if best != chosen.name:
        yield f"{best} has a higher mean gain ({gains[best]:+.2f}), not clearly better; the simpler way serves."


def _across(candidate: CandidateMeasures) -> str:
    return {"batch": "across batches", "plate": "across plates"}.get(candidate.compared_by, "across replicates")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
