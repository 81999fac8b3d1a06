"""The gate: reads numbers, knows no labels, and says in one sentence what serves the batch (docs/gate.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from coda.config.policy import GatePolicy
from coda.contracts.gate import CandidateScore, Evidence, FitScope, GateReport, Outcome, ReferenceScore
from coda.errors import ConfigError, Problem
from coda.evaluation.gate.better import BetterTest, Contest
from coda.evaluation.gate.definitions import scopes_of
from coda.evaluation.gate.health_limits import health_reasons
from coda.evaluation.gate.measures import CandidateMeasures
from coda.evaluation.gate.objections import compare, objections
from coda.evaluation.gate.sentences import Decision, advice_for, sentence_of
from coda.evaluation.gate.untrained_features import ReferenceMeasures


@dataclass(frozen=True)
class BatchName:
    """The batch version a decision is about."""

    source: str
    batch: str
    manifest_digest: str


def decide(
    candidates: Sequence[CandidateMeasures],
    policy: GatePolicy,
    batch: BatchName,
    *,
    seed: int,
    samples: int,
    references: Sequence[ReferenceMeasures] = (),
    evidence: Evidence | None = None,
    pool: Literal["cls", "mean"] = "mean",
) -> GateReport:
    """Choose what serves a batch, and whether a person must agree.

    1. *Health*, absolute: unhealthy candidates are out, whatever else they score.
    2. *Better than chance*: the deciding measure itself (agreement, where mutual information decides, which asks no
       plate map) is above 0; else a plate map that does not belong to the plates would look like a chance to learn.
    3. *Better than doing nothing*: the paired gain of the deciding measure over the baseline is above `min_gain`, and
       clearly above 0: by a sign-flip test of all gains together with `max_error`, which takes a baseline that is not
       healthy for no opponent; or, in policies that say so, by the lower end of its bootstrap interval.
    4. *Better than what serves already*: the same over the incumbent, as long as the incumbent is healthy on this
       batch and the baseline is not better than it by that same test. So where two cannot be told apart, the incumbent
       stays.
    5. *Not contradicted*: a guard or reference of the policy that a candidate does not pass is a veto, a reason to
       ask a person, or a remark. What needs no person comes before what does.
    6. *Simpler first*: what passed is taken from simple to involved, and one replaces the choice so far only if its
       gain over it has a mean above `min_gain` and a lower end not below `min_lower_step`.
    7. *Approval*: a release that rests on too few treatments, that a guard contradicts, or whose source the policy
       marks so, is held for a person.

    Raising the numbers of what was chosen can never cost it the choice; with `max_error` a simpler candidate that
    cannot be told apart from it may take its place (docs/decisions/0043).

    Args:
        candidates: Numbers of every candidate, the baseline among them; at most one is marked as the incumbent.
        policy: Thresholds, guards, references and approvers.
        batch: What the report is about.
        seed: Seed of the bootstrap.
        samples: Bootstrap samples over treatments.
        references: Features without training, measured on the same wells.
        evidence: The wells behind the numbers, for the report.
        pool: What of the tokens the measured features are, for the report.

    Returns:
        `release` of the chosen candidate, which is the baseline where an incumbent is not fit for the batch and
        nothing else is better; `hold` where a person must agree to that; `keep_incumbent` when nothing replaces the
        incumbent (or, without one, the healthy baseline), which then serves; `refuse` when nothing healthy can serve.

    Raises:
        ConfigError: The baseline is not among the candidates.
    """
    baseline = _baseline(candidates, policy)
    incumbent = next((candidate for candidate in candidates if candidate.incumbent), None)
    ordered = sorted(candidates, key=lambda candidate: (candidate.complexity, candidate.name))
    health = {
        candidate.name: tuple(health_reasons(candidate, baseline, policy.health, batch.source)) for candidate in ordered
    }
    healthy = [candidate for candidate in ordered if not health[candidate.name]]
    standing = Contest(healthy, baseline, incumbent, policy.deciding, samples, seed)
    judging = _Judging(standing, standing.test(), tuple(references), policy, health)
    scores = {candidate.name: judging.score(candidate) for candidate in ordered}
    rival = judging.fit_incumbent()
    before = rival or (baseline if scores[baseline.name].healthy else None)
    chosen = judging.best(ordered, scores, rival) or before
    outcome, reasons = _outcome(chosen, scores, judging, rival, batch.source)
    decision = Decision(
        batch.source, batch.batch, outcome, baseline, incumbent, chosen, before, scores, policy, tuple(reasons)
    )
    advice = (*_chance_advice(candidates, judging), *advice_for(decision))
    return _report(
        decision, judging, batch.manifest_digest, advice, scopes_of(policy, samples=samples, pool=pool), evidence
    )


def _report(
    decision: Decision,
    judging: "_Judging",
    manifest_digest: str,
    advice: Sequence[str],
    scopes: tuple[FitScope, ...],
    evidence: Evidence | None,
) -> GateReport:
    policy, held = decision.policy, decision.outcome == "hold"
    return GateReport(
        source=decision.source,
        batch=decision.batch,
        manifest_digest=manifest_digest,
        policy_version=policy.title,
        policy_digest=policy.digest(),
        baseline=policy.baseline,
        incumbent=decision.incumbent.name if decision.incumbent else None,
        candidates=tuple(decision.scores.values()),
        references=tuple(
            ReferenceScore(name=item.name, says=item.says, measures=item.measures) for item in judging.references
        ),
        outcome=decision.outcome,
        chosen=decision.chosen.name if decision.chosen else None,
        fit_to_predict=(decision.before if held else decision.chosen) is not None,
        sentence=sentence_of(decision),
        held_because=decision.reasons,
        approvers=policy.approval_of(decision.source).approvers if held else (),
        advice=tuple(advice),
        scopes=scopes,
        evidence=evidence,
    )


@dataclass(frozen=True)
class _Judging:
    """What every candidate of one batch is judged by."""

    contest: Contest
    test: BetterTest
    references: tuple[ReferenceMeasures, ...]
    policy: GatePolicy
    health: Mapping[str, tuple[str, ...]]

    @property
    def baseline(self) -> CandidateMeasures:
        return self.contest.baseline

    @property
    def incumbent(self) -> CandidateMeasures | None:
        return self.contest.incumbent

    def score(self, candidate: CandidateMeasures) -> CandidateScore:
        """Return a candidate's health, gains and comparisons."""
        reasons, incumbent = self.health[candidate.name], self.incumbent
        own = incumbent is not None and incumbent.name == candidate.name
        new = candidate is not self.baseline and not own
        # guards judge new ways; what is there already serves unless something is better
        others = [self.baseline] if new else []
        if others and incumbent is not None and incumbent is not self.baseline:
            others.append(incumbent)
        return CandidateScore(
            name=candidate.name,
            healthy=not reasons,
            health_reasons=reasons,
            measures=candidate.measures,
            gain=None if candidate.name == self.baseline.name else self.contest.gain(candidate, self.baseline),
            gain_over_incumbent=None if incumbent is None or own else self.contest.gain(candidate, incumbent),
            error=self.test.error(candidate, self.fit_incumbent()) if new and not reasons else None,
            compared=compare(
                candidate, others, self.references, self.policy, samples=self.contest.samples, seed=self.contest.seed
            ),
        )

    def fit_incumbent(self) -> CandidateMeasures | None:
        """Return the incumbent where it is fit for the batch: healthy, and not beaten by a healthy baseline."""
        if self.incumbent is None or self.incumbent is self.baseline:
            return None
        beaten = not self.health[self.baseline.name] and self.test.over_incumbent(self.baseline)
        return None if self.health[self.incumbent.name] or beaten else self.incumbent

    def best(
        self, ordered: Sequence[CandidateMeasures], scores: dict[str, CandidateScore], rival: CandidateMeasures | None
    ) -> CandidateMeasures | None:
        """Return the best candidate that passed every test; one that needs no person before one that does."""
        unfit = self.unfit(rival)
        passed = [
            candidate
            for candidate in ordered
            if candidate is not self.baseline and candidate is not self.incumbent
            if self._passes(candidate, scores[candidate.name], rival)
        ]
        undisputed = [item for item in passed if not any(objections(scores[item.name], "hold", unfit=unfit))]
        best: CandidateMeasures | None = None
        for candidate in undisputed or passed:
            if best is None or self._worth_more(candidate, best):
                best = candidate
        return best

    def _worth_more(self, candidate: CandidateMeasures, simpler: CandidateMeasures) -> bool:
        gain, deciding = self.contest.gain(candidate, simpler), self.policy.deciding
        if gain is None or gain.low is None:
            return False
        return gain.value > deciding.min_gain and gain.low >= deciding.min_lower_step

    def _passes(self, candidate: CandidateMeasures, score: CandidateScore, rival: CandidateMeasures | None) -> bool:
        if not score.healthy or any(objections(score, "veto", unfit=self.unfit(rival))):
            return False
        if not self.test.above_chance(candidate) or not self.test.over_baseline(candidate):
            return False
        return rival is None or self.test.over_incumbent(candidate)

    def unfit(self, rival: CandidateMeasures | None) -> str | None:
        """Return the name of an incumbent that is not fit for the batch, with which nothing needs to compare."""
        other = self.incumbent is not None and self.incumbent is not self.baseline
        return self.incumbent.name if self.incumbent is not None and other and rival is None else None


def _outcome(
    chosen: CandidateMeasures | None,
    scores: dict[str, CandidateScore],
    judging: _Judging,
    rival: CandidateMeasures | None,
    source: str,
) -> tuple[Outcome, list[str]]:
    """Return what follows from the choice, and why a person must decide where that is so."""
    baseline, incumbent, policy = judging.baseline, judging.incumbent, judging.policy
    if chosen is None:
        return "refuse", []
    if chosen is incumbent or (chosen is baseline and incumbent is None):
        return "keep_incumbent", []
    score, reasons = scores[chosen.name], []
    # an unhealthy incumbent gives way whatever was gained
    rests_on_a_gain = chosen is not baseline or (incumbent is not None and scores[incumbent.name].healthy)
    gain = score.gain_over_incumbent if chosen is baseline else score.gain
    if rests_on_a_gain and gain is not None and gain.n < policy.deciding.min_treatments:
        least = policy.deciding.min_treatments
        reasons.append(f"Only {gain.n} compounds were seen on two batches or plates; at least {least} are needed.")
    if chosen is not baseline:
        reasons += objections(score, "hold", unfit=judging.unfit(rival))
    if policy.approval_of(source).releases == "person":
        reasons.append(f"Releases of {source} are approved by a person.")
    return ("hold" if reasons else "release"), reasons


def _chance_advice(candidates: Sequence[CandidateMeasures], judging: _Judging) -> list[str]:
    judged = [candidate for candidate in candidates if candidate.by_treatment.get(judging.contest.chance_measure)]
    if not judged or any(judging.test.above_chance(candidate) for candidate in judged):
        return []
    told = "With no candidate do wells of one compound agree more than wells of different compounds"
    return [f"{told}: check that the plate map belongs to these plates."]


def _baseline(candidates: Sequence[CandidateMeasures], policy: GatePolicy) -> CandidateMeasures:
    named = {candidate.name: candidate for candidate in candidates}
    if policy.baseline not in named:
        found = ", ".join(named) or "no candidate"
        remedy = "Add it to adaptation.candidates, or name another baseline in the policy."
        problem = Problem("gate.policy.baseline", found, f"{policy.baseline!r} among the candidates", remedy)
        raise ConfigError("The gate cannot decide with this policy.", [problem])
    return named[policy.baseline]
