"""The gate: a table of situations, and properties that must hold for any numbers."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.config import Params
from coda.config.params import Gate
from coda.contracts.gate import GateReport, Measure
from coda.errors import ConfigError
from coda.evaluation.gate import BatchName, decide
from coda.evaluation.measures import CandidateMeasures

POLICY = Gate(
    policy_version="test", baseline="unadapted", deciding_measure="agreement", bootstrap=200, min_gain=0.0,
    min_lower_gain=0.0, min_lower_step=-0.02, min_marginal_entropy=0.5, min_feature_spread=0.2, min_rank_share=0.5,
    max_top_class_share=0.6,
)  # fmt: skip
BATCH = BatchName("lab_b", "2026_01", "0" * 64)
LADDER = ("unadapted", "aligned", "coral", "coda", "coda+aligned", "coda+coral")
HEALTHY = {"marginal_entropy": 0.95, "top_class_share": 0.2, "feature_spread": 0.9, "rankme": 20.0}
NOISE = np.random.default_rng(0).normal(0, 0.05, 24)


def candidate(
    name: str, level: float, *, noise: np.ndarray = NOISE, finite: bool = True, alarms: tuple[str, ...] = (),
    compared_by: str = "plate", **changes: float,
) -> CandidateMeasures:  # fmt: skip
    values = {f"t{k:02d}": float(level + part) for k, part in enumerate(noise)}
    health = {**HEALTHY, **changes}
    return CandidateMeasures(
        name=name,
        complexity=LADDER.index(name) if name in LADDER else 9,
        finite=finite,
        classes=8,
        compared_by=compared_by,
        measures={key: Measure(value=value, n=100) for key, value in health.items()},
        by_treatment={"agreement": values},
        alarms=alarms,
    )


def run(*candidates: CandidateMeasures, policy: Gate = POLICY) -> GateReport:
    return decide(candidates, policy, BATCH, seed=0)


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
         ("keeps serving", "coda")),
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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_situations(case: Case) -> None:
    report = run(*case.candidates)
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
    with pytest.raises(ConfigError, match=r"gate\.baseline"):
        run(candidate("coda", 0.1))
    for measure in ("rankme", "beauty"):
        with pytest.raises(ConfigError, match=measure):
            run(BASE, policy=POLICY.model_copy(update={"deciding_measure": measure}))


def test_the_projects_policy_is_one_the_gate_accepts(demo_params: Params) -> None:
    assert run(BASE, candidate("coda", 0.4), policy=demo_params.gate).chosen == "coda"


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
        assert score.gain.value > POLICY.min_gain
        assert score.gain.low is not None
        assert score.gain.low >= POLICY.min_lower_gain


def test_a_plate_map_that_does_not_belong_to_the_plates_is_suspected() -> None:
    shuffled = run(candidate("unadapted", 0.0, noise=SHUFFLED), candidate("coda", 0.01, noise=-SHUFFLED))
    assert any("plate map" in line for line in shuffled.advice)
    assert not any("plate map" in line for line in run(BASE, candidate("coda", 0.3)).advice)
