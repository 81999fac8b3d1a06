"""The gate's sentences: what was decided and why, for a scientist who never saw the code."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coda.config.params import Gate
from coda.contracts.gate import CandidateScore, Measure, Outcome
from coda.evaluation.measures import CandidateMeasures

WAYS = {
    "incumbent": "the model that serves this source already",
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


@dataclass(frozen=True)
class Decision:
    """What the gate decided, and on what grounds.

    Attributes:
        source: Source of the batch.
        batch: The batch.
        outcome: What follows from it.
        baseline: What would serve without adaptation.
        incumbent: What serves the source already; the baseline itself at times, None for a source without a release.
        chosen: What serves the batch, None when nothing may.
        scores: Every candidate's numbers by name, in the order of trying.
        policy: Thresholds.
    """

    source: str
    batch: str
    outcome: Outcome
    baseline: CandidateMeasures
    incumbent: CandidateMeasures | None
    chosen: CandidateMeasures | None
    scores: Mapping[str, CandidateScore]
    policy: Gate

    @property
    def subject(self) -> str:
        """What decided, with what was compared: 'agreement of one compound's predictions across batches'."""
        across = {"batch": "across batches", "plate": "across plates"}.get(self.baseline.compared_by)
        return f"{QUANTITIES[self.policy.deciding_measure]} {across or 'across replicates'}"

    @property
    def comparable(self) -> bool:
        """Whether any compound was seen on two batches or plates."""
        return bool(self.baseline.by_treatment.get(self.policy.deciding_measure))


def sentence_of(decision: Decision) -> str:
    """Say in one sentence, or two, what serves the batch and why."""
    if decision.chosen is None:
        return _refused(decision)
    if decision.outcome == "keep_incumbent":
        return _kept(decision)
    if decision.chosen is decision.baseline:
        return _back_to_the_baseline(decision)
    return _released(decision, decision.scores[decision.chosen.name])


def _released(decision: Decision, score: CandidateScore) -> str:
    gained = f" changed by {gain_text(score.gain)}" if score.gain else " could be measured"
    over = score.gain_over_incumbent
    before = f", and by {gain_text(over)} compared with what served before" if over else ""
    return (
        f"{_capital(way(score.name))} serves {decision.source}/{decision.batch}: the {decision.subject}{gained} "
        f"compared with {decision.policy.baseline}{before}; all health checks passed."
    )


def _kept(decision: Decision) -> str:
    if decision.incumbent is None or decision.incumbent is decision.baseline:
        reference, against = decision.baseline.name, ""
        gains = {name: score.gain for name, score in decision.scores.items()}
    else:
        reference, against = f"both it and {decision.baseline.name}", " compared with what served before"
        gains = {name: score.gain_over_incumbent for name, score in decision.scores.items()}
    if not decision.comparable:
        why = f"no compound was seen on two batches or plates, so the {decision.subject} cannot be compared"
    else:
        rivals = {name: gain for name, gain in gains.items() if gain is not None and decision.scores[name].healthy}
        why = f"no healthy candidate is clearly better than {reference} in the {decision.subject}"
        if rivals:
            best = max(rivals, key=lambda name: rivals[name].value)
            why += f"; the closest, {best}, changed it by {gain_text(rivals[best])}{against}"
    name = f" ({decision.incumbent.name})" if decision.incumbent is not None else ""
    return (
        f"What served {decision.source} before{name} keeps serving, now also {decision.source}/{decision.batch}: {why}."
    )


def _back_to_the_baseline(decision: Decision) -> str:
    before = decision.scores[decision.incumbent.name] if decision.incumbent else None
    if before is not None and not before.healthy:
        why = " ".join(before.health_reasons)
    else:
        gain = decision.scores[decision.baseline.name].gain_over_incumbent
        changed = f": without adaptation it changed by {gain_text(gain)}" if gain else ""
        why = f"It is worse than {decision.baseline.name} in the {decision.subject}{changed}."
    return (
        f"{_capital(way(decision.baseline.name))} serves {decision.source}/{decision.batch}, since what served "
        f"{decision.source} before is not fit for this batch and no new candidate is better. {why}"
    )


def _refused(decision: Decision) -> str:
    reasons = " ".join(decision.scores[decision.baseline.name].health_reasons) or "It is not healthy."
    before = ""
    if decision.incumbent is not None and decision.incumbent is not decision.baseline:
        before = f" Nor is what served {decision.source} before: "
        before += " ".join(decision.scores[decision.incumbent.name].health_reasons)
    return (
        f"No predictions are given for {decision.source}/{decision.batch}: {way(decision.baseline.name)} is not fit "
        f"for it and no candidate is both healthy and better. {reasons}{before}"
    )


def advice_for(decision: Decision) -> Iterator[str]:
    """Yield remarks that did not decide: for the person who reads the report."""
    base = decision.baseline
    n = len(base.by_treatment.get(decision.policy.deciding_measure, {}))
    if 0 < n < FEW_TREATMENTS:
        yield f"Only {n} compounds were seen on two batches or plates; the intervals are wide."
    if base.compared_by == "plate":
        yield "There is no earlier batch of this source yet: replicates were compared across plates of this batch."
    if "marginal_entropy" not in base.measures and base.measures:
        yield "The batch has a single compound, so the evenness of the predicted mechanisms was not checked."
    for score in decision.scores.values():
        if not score.healthy:
            yield f"{score.name} was not considered: {' '.join(score.health_reasons)}"
    if decision.chosen is not None and decision.chosen is not base:
        yield from _about_the_chosen(decision, decision.chosen)


def _about_the_chosen(decision: Decision, chosen: CandidateMeasures) -> Iterator[str]:
    base = decision.baseline
    for name in ("replicate_map", "neighbour"):
        if name != decision.policy.deciding_measure and name in chosen.measures and name in base.measures:
            change = chosen.measures[name].value - base.measures[name].value
            if change < -NOTABLE_FALL:
                yield f"The {QUANTITIES[name]} fell by {-change:.2f}: look at the embedding before relying on it."
    gains = {name: score.gain.value for name, score in decision.scores.items() if score.gain and score.healthy}
    best = max(gains, key=lambda name: gains[name], default=chosen.name)
    if best != chosen.name:
        stays = "what served before stays" if chosen is decision.incumbent else "the simpler way serves"
        yield f"{best} has a higher mean gain ({gains[best]:+.2f}), not clearly better; {stays}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
