"""The gate's sentences: what was decided and why, for a scientist who never saw the code."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coda.config.policy import GatePolicy
from coda.contracts.gate import CandidateScore, Outcome
from coda.evaluation.gate.definitions import BY_NAME
from coda.evaluation.gate.measures import CandidateMeasures
from coda.evaluation.gate.objections import objections
from coda.evaluation.gate.phrases import capital, gain_text, way

FEW_TREATMENTS = 10
"""Below this number of treatments an interval over treatments says little (advice only)."""


SMALLEST = 0.001
"""Probability below which the test's drawn patterns say little."""


@dataclass(frozen=True)
class Decision:
    """What the gate decided, and on what grounds.

    Attributes:
        source: Source of the batch.
        batch: The batch.
        outcome: What follows from it.
        baseline: What would serve without adaptation.
        incumbent: What serves the source already; the baseline itself at times, None for a source without a release.
        chosen: What serves the batch, or is proposed to; None when nothing may.
        before: What served before and is fit for the batch: the incumbent or the baseline; None where neither is.
        scores: Every candidate's numbers by name, in the order of trying.
        policy: Thresholds, guards and approvers.
        reasons: Why a person must decide.
    """

    source: str
    batch: str
    outcome: Outcome
    baseline: CandidateMeasures
    incumbent: CandidateMeasures | None
    chosen: CandidateMeasures | None
    before: CandidateMeasures | None
    scores: Mapping[str, CandidateScore]
    policy: GatePolicy
    reasons: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """What decided, with what was compared: 'agreement of one compound's predictions across batches'."""
        across = {"batch": "across batches", "plate": "across plates"}.get(self.baseline.compared_by)
        return f"{BY_NAME[self.policy.deciding.measure].quantity} {across or 'across replicates'}"

    @property
    def comparable(self) -> bool:
        """Whether any compound was seen on two batches or plates."""
        return bool(self.baseline.by_treatment.get(self.policy.deciding.measure))

    @property
    def unfit(self) -> str | None:
        """Name of an incumbent that is not fit for the batch: what it does better is no objection to anybody."""
        if self.incumbent is None or self.incumbent is self.baseline or self.before is self.incumbent:
            return None
        return self.incumbent.name


def sentence_of(decision: Decision) -> str:
    """Say in one sentence, or two, what serves the batch and why."""
    if decision.chosen is None:
        return _refused(decision)
    if decision.outcome == "hold":
        return _held(decision, decision.chosen)
    if decision.outcome == "keep_incumbent":
        return _kept(decision)
    if decision.chosen is decision.baseline:
        return _back_to_the_baseline(decision)
    return _released(decision, decision.scores[decision.chosen.name])


def _released(decision: Decision, score: CandidateScore) -> str:
    over = score.gain_over_incumbent
    before = f", and by {gain_text(over)} compared with what served before" if over else ""
    rarely = "" if score.error is None else f", which happens by chance with a probability of {_share(score.error)}"
    return (
        f"{capital(way(score.name))} serves {decision.source}/{decision.batch}: {_gained(decision, score)}"
        f"{before}{rarely}; all health checks passed."
    )


def _gained(decision: Decision, score: CandidateScore) -> str:
    """Say what a new candidate was released or proposed for: a gain, or agreement itself where none is fit."""
    base = decision.policy.baseline
    if decision.policy.deciding.max_error is not None and not decision.scores[base].healthy:
        return f"the {decision.subject} is above chance, and {base} is not fit for the batch"
    gained = f"changed by {gain_text(score.gain)}" if score.gain else "could be measured"
    return f"the {decision.subject} {gained} compared with {base}"


def _share(error: float) -> str:
    """Return a probability with two digits that count; what is smaller than a drawn test can tell is said to be so."""
    return f"{error:.2g}" if error >= SMALLEST else f"less than {SMALLEST:g}"


def _held(decision: Decision, chosen: CandidateMeasures) -> str:
    score, batch = decision.scores[chosen.name], f"{decision.source}/{decision.batch}"
    if chosen is decision.baseline:
        over = score.gain_over_incumbent
        gained = f"the {decision.subject} changed by {gain_text(over)} compared with what served before" if over else ""
    else:
        gained = _gained(decision, score) if score.gain else ""
    names = decision.policy.approval_of(decision.source).approvers
    who = " or ".join(names) if names else "A person who may promote"
    if decision.before is None:
        until = f"Until then no predictions are given for {batch}: what serves {decision.source} is not fit for it."
    else:
        until = f"Until then {way(decision.before.name)} keeps serving."
    return (
        f"{who} must decide whether {way(chosen.name)} serves {batch}: {gained or 'it is proposed'}, but a person is "
        f"needed. {' '.join(decision.reasons)} {until}"
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
    if decision.incumbent is None:  # nothing served this source yet: no word of anything that goes on
        return (
            f"{capital(way(decision.baseline.name))} serves {decision.source}/{decision.batch}, for "
            f"{decision.source} has no release of its own: {why}."
        )
    return (
        f"What served {decision.source} before ({decision.incumbent.name}) keeps serving, now also "
        f"{decision.source}/{decision.batch}: {why}."
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
        f"{capital(way(decision.baseline.name))} serves {decision.source}/{decision.batch}, since what served "
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
    n = len(base.by_treatment.get(decision.policy.deciding.measure, {}))
    if 0 < n < FEW_TREATMENTS:
        yield f"Only {n} compounds were seen on two batches or plates; the intervals are wide."
    if base.compared_by == "plate":
        yield "There is no earlier batch of this source yet: replicates were compared across plates of this batch."
    if "marginal_entropy" not in base.measures and base.measures:
        yield "The batch has a single compound, so the evenness of the predicted mechanisms was not checked."
    for score in decision.scores.values():
        if not score.healthy:
            yield f"{score.name} was not considered: {' '.join(score.health_reasons)}"
        if score.name != base.name and (decision.incumbent is None or score.name != decision.incumbent.name):
            for objection in objections(score, "veto", unfit=decision.unfit):
                yield f"{score.name} was not considered: {objection}"
    if decision.chosen is not None and decision.chosen is not base:
        yield from _about_the_chosen(decision, decision.chosen)


def _about_the_chosen(decision: Decision, chosen: CandidateMeasures) -> Iterator[str]:
    yield from objections(decision.scores[chosen.name], "advice", unfit=decision.unfit)
    kept = chosen is decision.incumbent
    if kept:
        # nothing is released, so nobody is asked; what speaks against it is worth reading all the same
        yield from objections(decision.scores[chosen.name], "hold")
    gains = {name: score.gain.value for name, score in decision.scores.items() if score.gain and score.healthy}
    best = max(gains, key=lambda name: gains[name], default=chosen.name)
    if best == chosen.name:
        return
    disputed = list(objections(decision.scores[best], "hold", unfit=decision.unfit))
    if disputed and decision.outcome == "release":
        yield f"{best} has a higher mean gain ({gains[best]:+.2f}), but is disputed. {' '.join(disputed)}"
        return
    simpler = "the simpler way is proposed" if decision.outcome == "hold" else "the simpler way serves"
    stays = "what served before stays" if kept else simpler
    yield f"{best} has a higher mean gain ({gains[best]:+.2f}), not clearly better; {stays}."
