"""The gate: reads numbers, knows no labels, and says in one sentence what serves the batch (docs/gate.md)."""

from collections.abc import Sequence
from dataclasses import dataclass

from coda.config.params import Gate
from coda.contracts.gate import CandidateScore, GateReport, Measure, Outcome
from coda.errors import ConfigError, Problem
from coda.evaluation.bootstrap import measured, paired_gain
from coda.evaluation.health import health_reasons
from coda.evaluation.measures import BY_TREATMENT, MEASURES, CandidateMeasures
from coda.evaluation.verdict import Decision, advice_for, sentence_of


@dataclass(frozen=True)
class BatchName:
    """The batch version a decision is about."""

    source: str
    batch: str
    manifest_digest: str


def decide(candidates: Sequence[CandidateMeasures], policy: Gate, batch: BatchName, *, seed: int) -> GateReport:
    """Choose what serves a batch.

    1. *Health*, absolute: unhealthy candidates are out, whatever else they score.
    2. *Better than chance*: the lower end of the deciding measure itself is above 0; else a plate map that does not
       belong to the plates would look like a chance to learn.
    3. *Better than doing nothing*: the paired gain of the deciding measure over the baseline, bootstrapped over
       treatments, has a mean above `min_gain` and a lower end not below `min_lower_gain`.
    4. *Better than what serves already*: the same over the incumbent, with `min_lower_incumbent`, as long as the
       incumbent is healthy on this batch and the baseline is not better than it by that same test. So where two
       cannot be told apart, the incumbent stays.
    5. *Simpler first*: what passed is taken from simple to involved, and one replaces the choice so far only if its
       gain over it has a mean above `min_gain` and a lower end not below `min_lower_step`.

    Raising a candidate's numbers can never cost it the choice.

    Args:
        candidates: Numbers of every candidate, the baseline among them; at most one is marked as the incumbent.
        policy: Thresholds.
        batch: What the report is about.
        seed: Seed of the bootstrap.

    Returns:
        `release` of the chosen candidate, which is the baseline where an incumbent is not fit for the batch and
        nothing else is better; `keep_incumbent` when nothing replaces the incumbent (or, without one, the healthy
        baseline), which then serves; `refuse` when nothing healthy can serve.

    Raises:
        ConfigError: The baseline is not among the candidates, or the deciding measure is unknown.
    """
    baseline = _baseline(candidates, policy)
    incumbent = next((candidate for candidate in candidates if candidate.incumbent), None)
    ordered = sorted(candidates, key=lambda candidate: (candidate.complexity, candidate.name))
    scores = {candidate.name: _score(candidate, baseline, incumbent, policy, seed) for candidate in ordered}
    chosen = _choose(ordered, scores, baseline, incumbent, policy, seed)
    if chosen is None:
        outcome: Outcome = "refuse"
    elif chosen is incumbent or (chosen is baseline and incumbent is None):
        outcome = "keep_incumbent"
    else:
        outcome = "release"
    decision = Decision(batch.source, batch.batch, outcome, baseline, incumbent, chosen, scores, policy)
    return GateReport(
        source=batch.source,
        batch=batch.batch,
        manifest_digest=batch.manifest_digest,
        policy_version=policy.policy_version,
        baseline=policy.baseline,
        incumbent=incumbent.name if incumbent else None,
        candidates=tuple(scores.values()),
        outcome=outcome,
        chosen=chosen.name if chosen else None,
        sentence=sentence_of(decision),
        advice=(*_chance_advice(candidates, policy, seed), *advice_for(decision)),
    )


def _choose(
    ordered: Sequence[CandidateMeasures],
    scores: dict[str, CandidateScore],
    baseline: CandidateMeasures,
    incumbent: CandidateMeasures | None,
    policy: Gate,
    seed: int,
) -> CandidateMeasures | None:
    """Return what serves: the best candidate that passed every test, else what was there, else nothing."""
    rival = None if incumbent is baseline else incumbent
    if rival is not None:
        beaten = scores[baseline.name].healthy and _replaces(scores[baseline.name], policy)
        rival = rival if scores[rival.name].healthy and not beaten else None
    before = rival or (baseline if scores[baseline.name].healthy else None)
    best = None
    for candidate in ordered:
        score = scores[candidate.name]
        if candidate is baseline or candidate is incumbent or not score.healthy:
            continue
        if not above_chance(candidate, policy, seed) or not _better(score.gain, policy.min_gain, policy.min_lower_gain):
            continue
        if rival is not None and not _replaces(score, policy):
            continue
        if best is None or _better(_gain(candidate, best, policy, seed), policy.min_gain, policy.min_lower_step):
            best = candidate
    return best or before


def above_chance(candidate: CandidateMeasures, policy: Gate, seed: int) -> bool:
    """Return whether replicates agree at all: whether the deciding measure's interval lies above 0."""
    values = candidate.by_treatment.get(policy.deciding_measure, {})
    found = measured(values, samples=policy.bootstrap, seed=seed)
    return found is not None and found.low is not None and found.low > 0


def _chance_advice(candidates: Sequence[CandidateMeasures], policy: Gate, seed: int) -> list[str]:
    judged = [candidate for candidate in candidates if candidate.by_treatment.get(policy.deciding_measure)]
    if not judged or any(above_chance(candidate, policy, seed) for candidate in judged):
        return []
    told = "With no candidate do wells of one compound agree more than wells of different compounds"
    return [f"{told}: check that the plate map belongs to these plates."]


def _baseline(candidates: Sequence[CandidateMeasures], policy: Gate) -> CandidateMeasures:
    named = {candidate.name: candidate for candidate in candidates}
    problems = []
    if policy.baseline not in named:
        found = ", ".join(named) or "no candidate"
        remedy = "Add it to adaptation.candidates, or name another gate.baseline."
        problems.append(Problem("gate.baseline", found, f"{policy.baseline!r} among the candidates", remedy))
    if policy.deciding_measure not in BY_TREATMENT:
        expected = f"one of {', '.join(BY_TREATMENT)}"
        found = repr(policy.deciding_measure) + (
            " (no treatments behind it)" if policy.deciding_measure in MEASURES else ""
        )
        problems.append(Problem("gate.deciding_measure", found, expected, "Name a measure with treatments behind it."))
    if problems:
        raise ConfigError("The gate cannot decide with this policy.", problems)
    return named[policy.baseline]


def _score(
    candidate: CandidateMeasures,
    baseline: CandidateMeasures,
    incumbent: CandidateMeasures | None,
    policy: Gate,
    seed: int,
) -> CandidateScore:
    reasons = health_reasons(candidate, baseline, policy)
    over = None if incumbent is None or incumbent.name == candidate.name else _gain(candidate, incumbent, policy, seed)
    return CandidateScore(
        name=candidate.name,
        healthy=not reasons,
        health_reasons=tuple(reasons),
        measures=candidate.measures,
        gain=None if candidate.name == baseline.name else _gain(candidate, baseline, policy, seed),
        gain_over_incumbent=over,
    )


def _gain(candidate: CandidateMeasures, other: CandidateMeasures, policy: Gate, seed: int) -> Measure | None:
    name = policy.deciding_measure
    return paired_gain(
        candidate.by_treatment.get(name, {}), other.by_treatment.get(name, {}), samples=policy.bootstrap, seed=seed
    )


def _replaces(score: CandidateScore, policy: Gate) -> bool:
    return _better(score.gain_over_incumbent, policy.min_gain, policy.min_lower_incumbent)


def _better(gain: Measure | None, least: float, least_lower_end: float) -> bool:
    if gain is None or gain.low is None:
        return False
    return gain.value > least and gain.low >= least_lower_end
