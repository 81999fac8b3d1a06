"""The second tier beside the deciding measure: guards and references, and their objections to a candidate."""

from collections.abc import Iterator, Sequence

from coda.config.policy import Comparison, GatePolicy, Guard, Otherwise
from coda.contracts.gate import CandidateScore, Compared, Measure
from coda.evaluation.gate.definitions import BY_NAME
from coda.evaluation.gate.measures import CandidateMeasures
from coda.evaluation.gate.phrases import REFERENCES, gain_text
from coda.evaluation.gate.untrained_features import ReferenceMeasures
from coda.evaluation.metrics.bootstrap import paired_gain


def compare(
    candidate: CandidateMeasures,
    others: Sequence[CandidateMeasures],
    references: Sequence[ReferenceMeasures],
    policy: GatePolicy,
    *,
    samples: int,
    seed: int,
) -> tuple[Compared, ...]:
    """Compare a candidate by every guard with other candidates, and by the policy's references.

    A guard is passed unless the whole interval of the paired gain lies below minus `max_fall`: a clear fall. A
    reference is passed where the candidate is clearly better: mean above 0 and the lower end not below
    `min_lower_gain`. With fewer than `min_treatments` treatments neither says anything.

    Args:
        candidate: Its numbers.
        others: The baseline, and the incumbent where there is one; nobody for these two themselves.
        references: Features without training, measured on the same wells.
        policy: Guards and references.
        samples: Bootstrap samples over treatments.
        seed: Seed of the bootstrap.
    """

    def gain_over(measure: str, other: CandidateMeasures | ReferenceMeasures) -> Measure | None:
        mine, theirs = candidate.by_treatment.get(measure, {}), other.by_treatment.get(measure, {})
        return paired_gain(mine, theirs, samples=samples, seed=seed)

    found = [
        _guarded(measure, other.name, gain_over(measure, other), guard)
        for other in others
        for measure, guard in sorted(policy.guards.items())
    ]
    named = {reference.name: reference for reference in references}
    for name, comparison in sorted(policy.references.items()):
        if name in named:
            gain = gain_over(comparison.measure, named[name])
            found.append(_referred(name, gain, comparison))
    return tuple(found)


def _guarded(measure: str, against: str, gain: Measure | None, guard: Guard) -> Compared:
    passed = None
    if gain is not None and gain.high is not None and gain.n >= guard.min_treatments:
        passed = gain.high >= -guard.max_fall
    sentence = ""
    if passed is False and gain is not None:
        sentence = f"The {BY_NAME[measure].quantity} fell compared with {against}: {gain_text(gain)}."
    return Compared(
        measure=measure, against=against, gain=gain, passed=passed, otherwise=guard.otherwise, sentence=sentence
    )


def _referred(name: str, gain: Measure | None, comparison: Comparison) -> Compared:
    passed = None
    if gain is not None and gain.low is not None and gain.n >= comparison.min_treatments:
        passed = gain.value > 0 and gain.low >= comparison.min_lower_gain
    sentence = ""
    if passed is False and gain is not None:
        verdict = "worse" if gain.high is not None and gain.high < 0 else "not clearly better"
        sentence = (
            f"The {BY_NAME[comparison.measure].quantity} is {verdict} than with {REFERENCES[name]}: {gain_text(gain)}."
        )
    return Compared(
        measure=comparison.measure, against=name, gain=gain, passed=passed, otherwise=comparison.otherwise,
        sentence=sentence,
    )  # fmt: skip


def objections(score: CandidateScore, otherwise: Otherwise, *, unfit: str | None = None) -> Iterator[str]:
    """Yield the objections to a candidate that have this consequence, as text.

    Args:
        score: The candidate's numbers.
        otherwise: Consequence that is asked for.
        unfit: Name of an incumbent that is not fit for the batch: comparisons with it do not count.
    """
    for item in score.compared:
        if item.passed is False and item.otherwise == otherwise and item.against != unfit:
            yield item.sentence
