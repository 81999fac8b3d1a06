"""Whether one way of serving a batch is better than another: by intervals, or by a test with a stated error."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from coda.config.policy import Deciding
from coda.contracts.gate import Measure
from coda.evaluation.gate.measures import CandidateMeasures
from coda.evaluation.metrics.bootstrap import measured, paired_gain
from coda.evaluation.metrics.sign_flips import family_wise_p


class BetterTest(Protocol):
    """What counts as better in the deciding measure."""

    def above_chance(self, candidate: CandidateMeasures) -> bool:
        """Return whether replicates agree at all with this candidate."""

    def over_baseline(self, candidate: CandidateMeasures) -> bool:
        """Return whether a candidate is better than the baseline, where that is an opponent."""

    def over_incumbent(self, candidate: CandidateMeasures) -> bool:
        """Return whether a candidate is better than what serves the source already."""

    def error(self, candidate: CandidateMeasures, rival: CandidateMeasures | None) -> float | None:
        """Return how probable so much is by chance, over all candidates; None where that was not asked."""


@dataclass(frozen=True)
class Contest:
    """Who stands in a decision, and how they are compared.

    Attributes:
        candidates: Those that are healthy, baseline and incumbent among them.
        baseline: What would serve without adaptation.
        incumbent: What serves the source already; None without one.
        deciding: Measure and limits.
        samples: Bootstrap samples over treatments.
        seed: Seed of resamples and flips.
    """

    candidates: Sequence[CandidateMeasures]
    baseline: CandidateMeasures
    incumbent: CandidateMeasures | None
    deciding: Deciding
    samples: int
    seed: int

    def gain(self, candidate: CandidateMeasures, other: CandidateMeasures) -> Measure | None:
        """Return the paired gain of the deciding measure."""
        mine, theirs = (item.by_treatment.get(self.deciding.measure, {}) for item in (candidate, other))
        return paired_gain(mine, theirs, samples=self.samples, seed=self.seed)

    def gains(self, candidate: CandidateMeasures, other: CandidateMeasures) -> dict[str, float]:
        """Return the gain of every treatment that both have."""
        mine, theirs = (item.by_treatment.get(self.deciding.measure, {}) for item in (candidate, other))
        return {name: mine[name] - theirs[name] for name in sorted(mine.keys() & theirs.keys())}

    @property
    def chance_measure(self) -> str:
        """The deciding measure, or agreement where the deciding one is above 0 with any plate map."""
        return "agreement" if self.deciding.measure == "mutual_information" else self.deciding.measure

    def test(self) -> BetterTest:
        """Return the test that the policy asks for."""
        return Intervals(self) if self.deciding.max_error is None else SignFlips(self, self.deciding.max_error)


@dataclass(frozen=True)
class Intervals:
    """By the 95 % bootstrap interval of each gain on its own (policies that give `min_lower_gain`)."""

    contest: Contest

    def above_chance(self, candidate: CandidateMeasures) -> bool:
        """See `BetterTest`: the interval of the measure itself lies above 0."""
        values = candidate.by_treatment.get(self.contest.chance_measure, {})
        found = measured(values, samples=self.contest.samples, seed=self.contest.seed)
        return found is not None and found.low is not None and found.low > 0

    def over_baseline(self, candidate: CandidateMeasures) -> bool:
        """See `BetterTest`; a baseline that is not healthy is an opponent all the same."""
        return self._clear(self.contest.gain(candidate, self.contest.baseline), self.contest.deciding.min_lower_gain)

    def over_incumbent(self, candidate: CandidateMeasures) -> bool:
        """See `BetterTest`."""
        if self.contest.incumbent is None:
            return True
        return self._clear(
            self.contest.gain(candidate, self.contest.incumbent), self.contest.deciding.min_lower_incumbent
        )

    def error(self, candidate: CandidateMeasures, rival: CandidateMeasures | None) -> None:
        """See `BetterTest`: an interval has no error over all candidates."""
        del candidate, rival

    def _clear(self, gain: Measure | None, least: float | None) -> bool:
        if gain is None or gain.low is None or least is None:
            return False
        return gain.value > self.contest.deciding.min_gain and gain.low >= least


@dataclass(frozen=True)
class SignFlips:
    """By one sign-flip test over all gains, with the policy's `max_error` (docs/decisions/0043)."""

    contest: Contest
    most: float
    gained: dict[tuple[str, str], float] = field(init=False)
    agreeing: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        """Test every pair that a decision may rest on."""
        who = self.contest
        base, before = who.baseline, who.incumbent
        fit: Collection[str] = {item.name for item in who.candidates}
        opponents = [item for item in (base, before) if item is not None and item.name in fit]
        pairs = {
            (item.name, other.name): who.gains(item, other)
            for item in who.candidates
            for other in opponents
            if item.name != other.name and item is not before
        }
        values = {item.name: item.by_treatment.get(who.chance_measure, {}) for item in who.candidates}
        object.__setattr__(self, "gained", family_wise_p(pairs, seed=who.seed))
        object.__setattr__(self, "agreeing", family_wise_p(values, seed=who.seed))

    def above_chance(self, candidate: CandidateMeasures) -> bool:
        """See `BetterTest`: agreement itself is above 0, over all candidates."""
        return self.agreeing.get(candidate.name, 1.0) <= self.most

    def over_baseline(self, candidate: CandidateMeasures) -> bool:
        """See `BetterTest`; a baseline that is not healthy is no opponent."""
        return self._clear(candidate, self.contest.baseline)

    def over_incumbent(self, candidate: CandidateMeasures) -> bool:
        """See `BetterTest`; nor is an incumbent that is not healthy."""
        return self.contest.incumbent is None or self._clear(candidate, self.contest.incumbent)

    def error(self, candidate: CandidateMeasures, rival: CandidateMeasures | None) -> float | None:
        """Return the largest p-value over the opponents, or that of agreement itself where none is left."""
        names = [self.contest.baseline.name] + ([rival.name] if rival is not None else [])
        found = [self.gained[candidate.name, name] for name in names if (candidate.name, name) in self.gained]
        return max(found) if found else self.agreeing.get(candidate.name)

    def _clear(self, candidate: CandidateMeasures, other: CandidateMeasures) -> bool:
        if other.name not in {item.name for item in self.contest.candidates}:
            return True
        gain = self.contest.gain(candidate, other)
        large = gain is not None and gain.value > self.contest.deciding.min_gain
        return large and self.gained.get((candidate.name, other.name), 1.0) <= self.most
