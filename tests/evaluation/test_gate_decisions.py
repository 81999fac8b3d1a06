"""The gate: a table of situations, and properties that must hold for any numbers."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from gate_numbers import LADDER, NOISE, POLICY, by_treatment, candidate, policy, run
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.config import Params
from coda.contracts.gate import GateReport
from coda.errors import ConfigError
from coda.evaluation.gate.measures import CandidateMeasures


@dataclass(frozen=True)
class Case:
    name: str
    candidates: tuple[CandidateMeasures, ...]
    outcome: str
    chosen: str | None
    says: tuple[str, ...] = field(default=())


BASE = candidate("unadapted", 0.1)
SHUFFLED = np.random.default_rng(1).normal(0, 0.15, 24)
CASES = [
    Case("a clear gain is released", (BASE, candidate("coda", 0.3)), "release", "coda", ("+0.20", "24 compounds")),
    Case("nothing better keeps the baseline", (BASE, candidate("coda", 0.1)), "keep_incumbent", "unadapted",
         ("unadapted) serves lab_b/2026_01, for lab_b has no release of its own", "coda")),
    Case("a loss keeps the baseline", (BASE, candidate("coda", 0.0)), "keep_incumbent", "unadapted"),
    Case("a candidate that is worse for most treatments is not carried by a few",
         (BASE, candidate("coda", 0.1, noise=NOISE + np.where(np.arange(24) < 2, 0.6, -0.04))),
         "keep_incumbent", "unadapted"),
    Case("the better of two gains is released", (BASE, candidate("aligned", 0.2), candidate("coda+aligned", 0.4)),
         "release", "coda+aligned"),
    Case("of two equal ones the simpler is released",
         (BASE, candidate("coda+aligned", 0.3), candidate("aligned", 0.3)), "release", "aligned"),
    Case("a higher mean that is not clear does not displace the simpler one",
         (BASE, candidate("aligned", 0.3),
          candidate("coda", 0.32, noise=NOISE + np.random.default_rng(2).normal(0, 0.3, 24))),
         "release", "aligned"),
    Case("a collapsed candidate is out though it agrees most",
         (BASE, candidate("coda", 0.9, marginal_entropy=0.1, top_class_share=0.95)), "keep_incumbent", "unadapted"),
    Case("features without spread are out", (BASE, candidate("coda", 0.9, feature_spread=0.05)),
         "keep_incumbent", "unadapted"),
    Case("features of few directions are out", (BASE, candidate("coda", 0.9, rankme=4.0)),
         "keep_incumbent", "unadapted"),
    Case("an alarm of the training is out", (BASE, candidate("coda", 0.9, alarms=("The loss stood at ln K.",))),
         "keep_incumbent", "unadapted"),
    Case("numbers that are none are out", (BASE, candidate("coda", 0.9, finite=False)),
         "keep_incumbent", "unadapted"),
    Case("a model adapted on shuffled treatments gains nothing and is not released",
         (BASE, candidate("coda", 0.0, noise=SHUFFLED)), "keep_incumbent", "unadapted"),
    Case("a gain that is not clear of nothing is not released",
         (BASE, candidate("coda", 0.14, noise=NOISE + np.random.default_rng(2).normal(0, 0.15, 24))),
         "keep_incumbent", "unadapted"),
    Case("a gain over less than chance is no reason to release",
         (candidate("unadapted", -0.2), candidate("coda", 0.0, noise=NOISE)), "keep_incumbent", "unadapted"),
    Case("a small step up from a simpler one that is better already is taken",
         (BASE, candidate("aligned", 0.3),
          candidate("coda", 0.31, noise=NOISE + np.random.default_rng(2).normal(0, 0.05, 24))),
         "release", "coda"),
    Case("an unhealthy baseline gives way to a healthy better one",
         (candidate("unadapted", 0.1, marginal_entropy=0.2), candidate("coda", 0.3)), "release", "coda"),
    Case("an unhealthy baseline and nothing better refuses",
         (candidate("unadapted", 0.1, marginal_entropy=0.2), candidate("coda", 0.05)), "refuse", None,
         ("No predictions", "few mechanisms")),
    Case("no treatment on two plates: the baseline serves",
         (candidate("unadapted", 0.1, noise=NOISE[:0]), candidate("coda", 0.3, noise=NOISE[:0])),
         "keep_incumbent", "unadapted", ("no compound was seen on two",)),
    Case("the baseline alone serves", (BASE,), "keep_incumbent", "unadapted"),
]  # fmt: skip


def marked(name: str, level: float, **changes: float) -> CandidateMeasures:
    """One of the usual ways, which serves the source already."""
    return candidate(name, level, incumbent=True, **changes)


UNCLEAR = NOISE + np.random.default_rng(2).normal(0, 0.15, 24)
SICK = {"marginal_entropy": 0.2}
WITH_INCUMBENT = [
    Case("better than the baseline and than the incumbent is released",
         (BASE, candidate("incumbent", 0.3), candidate("coda", 0.4)), "release", "coda",
         ("+0.30", "+0.10", "compared with what served before")),
    Case("better than the baseline and as good as the incumbent keeps the incumbent",
         (BASE, candidate("incumbent", 0.3), candidate("coda", 0.3)), "keep_incumbent", "incumbent",
         ("What served lab_b before (incumbent) keeps serving", "coda", "+0.00")),
    Case("better than the baseline and worse than the incumbent keeps the incumbent",
         (BASE, candidate("incumbent", 0.3), candidate("coda", 0.2)), "keep_incumbent", "incumbent", ("-0.10",)),
    Case("a higher mean that is not clear does not displace the incumbent",
         (BASE, candidate("incumbent", 0.3), candidate("coda", 0.33, noise=UNCLEAR)), "keep_incumbent", "incumbent"),
    Case("a simpler candidate that is as good does not displace it either",
         (BASE, candidate("incumbent", 0.3), candidate("aligned", 0.3)), "keep_incumbent", "incumbent"),
    Case("the simplest of those that are better is released",
         (BASE, candidate("incumbent", 0.2), candidate("aligned", 0.4), candidate("coda+aligned", 0.4)),
         "release", "aligned"),
    Case("one that is not better than the incumbent is no step for the next",
         (BASE, candidate("incumbent", 0.3), candidate("aligned", 0.3), candidate("coda+aligned", 0.4)),
         "release", "coda+aligned"),
    Case("an unhealthy candidate does not displace the incumbent",
         (BASE, candidate("incumbent", 0.3), candidate("coda", 0.9, **SICK)), "keep_incumbent", "incumbent"),
    Case("an unhealthy incumbent gives way to what is better than the baseline, though it scores more",
         (BASE, candidate("incumbent", 0.9, **SICK), candidate("coda", 0.3)), "release", "coda"),
    Case("an unhealthy incumbent and nothing better: the baseline serves",
         (BASE, candidate("incumbent", 0.9, **SICK), candidate("coda", 0.1)), "release", "unadapted",
         ("what served lab_b before is not fit for this batch", "few mechanisms")),
    Case("an incumbent worse than the baseline and nothing better: the baseline serves",
         (BASE, candidate("incumbent", -0.1), candidate("coda", 0.1)), "release", "unadapted",
         ("not fit for this batch", "worse than unadapted", "+0.20")),
    Case("an incumbent worse than the baseline gives way to what is better than the baseline",
         (BASE, candidate("incumbent", -0.1), candidate("coda", 0.3)), "release", "coda"),
    Case("an incumbent that is not clearly worse than the baseline stays",
         (BASE, candidate("incumbent", 0.08, noise=UNCLEAR)), "keep_incumbent", "incumbent"),
    Case("an incumbent as good as the baseline stays", (BASE, candidate("incumbent", 0.1)),
         "keep_incumbent", "incumbent"),
    Case("a candidate must be better than the baseline, too",
         (BASE, candidate("incumbent", 0.08, noise=UNCLEAR), candidate("coda", 0.1)), "keep_incumbent", "incumbent"),
    Case("a healthy incumbent serves where the baseline is unhealthy",
         (candidate("unadapted", 0.1, **SICK), candidate("incumbent", 0.1), candidate("coda", 0.05)),
         "keep_incumbent", "incumbent"),
    Case("neither the baseline nor the incumbent is healthy and nothing is better: refused",
         (candidate("unadapted", 0.1, **SICK), candidate("incumbent", 0.5, finite=False), candidate("coda", 0.0)),
         "refuse", None, ("No predictions", "Nor is what served lab_b before", "no numbers")),
    Case("no treatment on two plates: the incumbent serves",
         (candidate("unadapted", 0.1, noise=NOISE[:0]), candidate("incumbent", 0.3, noise=NOISE[:0]),
          candidate("coda", 0.3, noise=NOISE[:0])),
         "keep_incumbent", "incumbent", ("no compound was seen on two",)),
    Case("no treatment on two plates and an unhealthy incumbent: the baseline serves",
         (candidate("unadapted", 0.1, noise=NOISE[:0]), candidate("incumbent", 0.3, noise=NOISE[:0], **SICK)),
         "release", "unadapted", ("few mechanisms",)),
    Case("one of the usual ways that serves already stays when nothing is clearly better",
         (BASE, marked("aligned", 0.3), candidate("coda+aligned", 0.3)), "keep_incumbent", "aligned",
         ("before (aligned) keeps serving",)),
    Case("one of the usual ways that serves already gives way to a clearly better one",
         (BASE, marked("aligned", 0.3), candidate("coda+aligned", 0.4)), "release", "coda+aligned"),
    Case("an involved way that serves already is not displaced by a simpler one as good",
         (BASE, marked("coda+aligned", 0.3), candidate("aligned", 0.3)), "keep_incumbent", "coda+aligned"),
    Case("a baseline that serves already stays", (marked("unadapted", 0.1), candidate("coda", 0.1)),
         "keep_incumbent", "unadapted", ("keeps serving",)),
    Case("a baseline that serves already gives way", (marked("unadapted", 0.1), candidate("coda", 0.3)),
         "release", "coda"),
    Case("a baseline that serves already and is unhealthy is refused",
         (marked("unadapted", 0.1, **SICK), candidate("coda", 0.0)), "refuse", None),
]  # fmt: skip


@pytest.mark.parametrize("case", [*CASES, *WITH_INCUMBENT], ids=lambda case: case.name)
def test_situations(case: Case) -> None:
    report = run(*case.candidates)
    named = [item.name for item in case.candidates if item.incumbent]
    assert report.incumbent == (named[0] if named else None)
    assert (report.outcome, report.chosen) == (case.outcome, case.chosen)
    for words in (*case.says, "lab_b/2026_01"):
        assert words in report.sentence
    assert GateReport.parse(report.to_json(), "report") == report


def test_unhealthy_candidates_say_why() -> None:
    report = run(BASE, candidate("coda", 0.9, marginal_entropy=0.1, top_class_share=0.95, feature_spread=0.1, rankme=2))
    coda = next(score for score in report.candidates if score.name == "coda")
    assert not coda.healthy
    assert len(coda.health_reasons) == 4
    for value in ("0.10", "95%", "2.0", "10%"):
        assert value in " ".join(coda.health_reasons)
    assert any("coda was not considered" in line for line in report.advice)


def test_order_of_candidates_does_not_matter() -> None:
    candidates = [candidate(name, 0.1 + 0.02 * k) for k, name in enumerate(LADDER)]
    assert run(*candidates) == run(*reversed(candidates))


def test_policy_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"gate\.policy\.baseline"):
        run(candidate("coda", 0.1))


def test_the_projects_policy_is_one_the_gate_accepts(demo_params: Params) -> None:
    assert run(BASE, candidate("coda", 0.4), by=demo_params.gate.policy).chosen == "coda"


LEVELS = st.lists(st.floats(-0.2, 0.6), min_size=3, max_size=3)


@given(LEVELS, st.integers(0, 2), st.lists(st.floats(0, 0.5), min_size=24, max_size=24), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_raising_the_chosen_candidates_numbers_never_costs_it_the_choice(
    levels: list[float], which: int, rises: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    noises = [rng.normal(0, 0.15, 24) for _ in levels]
    names = ("aligned", "coda", "coda+aligned")
    before = [candidate(name, level, noise=noise) for name, level, noise in zip(names, levels, noises, strict=True)]
    first = run(BASE, *before)
    raised = candidate(names[which], levels[which], noise=noises[which] + np.array(rises))
    second = run(BASE, *(raised if other.name == raised.name else other for other in before))
    if first.chosen == names[which]:
        assert second.chosen == names[which]


@given(
    LEVELS, st.floats(-0.2, 0.6), st.integers(0, 4), st.lists(st.floats(0, 0.5), min_size=24, max_size=24),
    st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_with_an_incumbent_raising_what_serves_never_costs_it_the_choice(
    levels: list[float], incumbent: float, which: int, rises: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    names = ("unadapted", "incumbent", "aligned", "coda", "coda+aligned")
    places = dict(zip(names, (0.1, incumbent, *levels), strict=True))
    noises = {name: rng.normal(0, 0.15, 24) for name in names}
    first = run(*(candidate(name, places[name], noise=noises[name]) for name in names))
    noises[names[which]] = noises[names[which]] + np.array(rises)
    second = run(*(candidate(name, places[name], noise=noises[name]) for name in names))
    if first.chosen == names[which]:
        assert second.chosen == names[which]
        assert second.outcome == first.outcome


@given(LEVELS, st.floats(-0.2, 0.6), st.integers(0, 9))
@settings(max_examples=80, deadline=None)
def test_nothing_replaces_a_healthy_incumbent_without_a_clear_gain_over_it_or_over_what_beats_it(
    levels: list[float], incumbent: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    names = ("aligned", "coda", "coda+aligned")
    others = [candidate(n, level, noise=rng.normal(0, 0.1, 24)) for n, level in zip(names, levels, strict=True)]
    report = run(BASE, candidate("incumbent", incumbent, noise=rng.normal(0, 0.1, 24)), *others)
    scores = {score.name: score for score in report.candidates}

    def clear(name: str) -> bool:
        gain = scores[name].gain_over_incumbent
        return gain is not None and gain.value > 0 and gain.low is not None and gain.low >= 0

    assert scores["incumbent"].gain_over_incumbent is None
    if report.outcome == "keep_incumbent":
        assert report.chosen == "incumbent"
        assert not clear("unadapted")
    else:
        assert clear(report.chosen or "") or clear("unadapted")


def test_an_incumbent_kept_for_lack_of_a_clear_gain_is_told_of_the_higher_mean() -> None:
    report = run(BASE, candidate("incumbent", 0.3), candidate("coda", 0.33, noise=UNCLEAR))
    assert any("coda has a higher mean gain" in line and "what served before stays" in line for line in report.advice)


def test_more_than_a_clear_gain_over_the_incumbent_may_be_asked_for() -> None:
    candidates = (BASE, candidate("incumbent", 0.3), candidate("coda", 0.35))
    assert run(*candidates).chosen == "coda"
    strict = policy(deciding={"min_lower_incumbent": 0.1})
    assert run(*candidates, by=strict).chosen == "incumbent"
    lenient = policy(deciding={"min_lower_incumbent": -1.0})
    unclear = (BASE, candidate("incumbent", 0.3), candidate("coda", 0.33, noise=UNCLEAR))
    assert run(*unclear, by=lenient).chosen == "coda"


@given(LEVELS, st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_what_is_released_is_healthy_and_gained_on_the_mean(levels: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = ("aligned", "coda", "coda+aligned")
    candidates = [
        candidate(name, level, noise=rng.normal(0, 0.2, 24), marginal_entropy=float(rng.uniform(0.3, 1)))
        for name, level in zip(names, levels, strict=True)
    ]
    report = run(BASE, *candidates)
    if report.outcome == "release":
        score = next(score for score in report.candidates if score.name == report.chosen)
        assert score.healthy
        assert score.gain is not None
        assert score.gain.value > POLICY.deciding.min_gain
        assert score.gain.low is not None
        assert score.gain.low >= POLICY.deciding.min_lower_gain


def test_a_plate_map_that_does_not_belong_to_the_plates_is_suspected() -> None:
    shuffled = run(candidate("unadapted", 0.0, noise=SHUFFLED), candidate("coda", 0.01, noise=-SHUFFLED))
    assert any("plate map" in line for line in shuffled.advice)
    assert not any("plate map" in line for line in run(BASE, candidate("coda", 0.3)).advice)


def informed(name: str, information: float, agreement: float) -> CandidateMeasures:
    return candidate(name, agreement, others={"mutual_information": by_treatment(information)})


def test_where_information_decides_agreement_must_still_be_above_chance():
    by = policy(deciding={"measure": "mutual_information"})
    right_map = run(informed("unadapted", 0.2, 0.3), informed("aligned", 0.5, 0.2), by=by)
    assert (right_map.outcome, right_map.chosen) == ("release", "aligned"), "information decides, not agreement"
    # information asks no plate map; agreement is what sees that the map is another plate's
    wrong_map = run(informed("unadapted", 0.2, 0.0), informed("aligned", 0.5, 0.0), by=by)
    assert (wrong_map.outcome, wrong_map.chosen) == ("keep_incumbent", "unadapted")
    assert any("plate map" in advice for advice in wrong_map.advice)


def test_where_information_decides_and_no_compound_was_seen_twice_nothing_is_released():
    by = policy(deciding={"measure": "mutual_information"})
    alone = {"agreement": {}}
    candidates = [informed("unadapted", 0.2, 0.3), informed("coda", 0.5, 0.3)]
    report = run(*(item.model_copy(update={"by_treatment": item.by_treatment | alone}) for item in candidates), by=by)
    assert (report.outcome, report.chosen) == ("keep_incumbent", "unadapted")
