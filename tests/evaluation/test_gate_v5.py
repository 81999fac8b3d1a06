"""gate-v5: a stated error over all candidates, limits that know the number of classes, an unfit baseline."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import yaml
from gate_numbers import NOISE, candidate, run
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from coda.config.policy import GatePolicy, policy_path
from coda.contracts.gate import GateReport
from coda.evaluation.gate.measures import CandidateMeasures


def shipped(version: int, **changes: Any) -> GatePolicy:
    """A policy of the package, with some of its sections' values changed."""
    content = yaml.safe_load(policy_path(f"gate-v{version}").read_text(encoding="utf-8"))
    for section, values in changes.items():
        content[section] = {**content[section], **values}
    return GatePolicy.model_validate_json(json.dumps(content))


V5 = shipped(5)
BASE = candidate("unadapted", 0.1)
UNFIT = {"marginal_entropy": 0.2}


def two_classes(name: str, level: float, share: float) -> CandidateMeasures:
    p = np.array([share, 1 - share])
    evenness = float(-(p * np.log(p)).sum() / np.log(2))
    made = candidate(name, level, top_class_share=share, marginal_entropy=evenness)
    return made.model_copy(update={"classes": 2})


def test_a_clear_gain_is_released_and_says_how_rarely_it_happens_by_chance() -> None:
    report = run(BASE, candidate("coda", 0.3), by=V5)
    assert (report.outcome, report.chosen) == ("release", "coda")
    assert "by chance with a probability of" in report.sentence
    scores = {score.name: score for score in report.candidates}
    assert scores["unadapted"].error is None
    assert scores["coda"].error is not None
    assert scores["coda"].error <= 0.05
    assert GateReport.parse(report.to_json(), "report") == report


def test_a_gain_that_is_clear_and_practically_nothing_moves_nothing() -> None:
    nearly = candidate("coda", 0.11)
    assert run(BASE, nearly).outcome == "release"
    assert run(BASE, nearly, by=V5).outcome == "keep_incumbent"
    assert run(BASE, candidate("incumbent", 0.3), candidate("coda", 0.31), by=V5).chosen == "incumbent"


def test_an_unfit_baseline_is_no_opponent() -> None:
    # it agrees more than the candidate: since one answer for all agrees with itself
    unfit, good = candidate("unadapted", 0.9, **UNFIT), candidate("aligned", 0.4)
    assert run(unfit, good).outcome == "refuse"
    report = run(unfit, good, by=V5)
    assert (report.outcome, report.chosen) == ("release", "aligned")
    assert report.candidates[1].error is not None
    # a change against what was ruled out would be a number about nothing, and here a negative one
    assert "is above chance, and unadapted is not fit for the batch" in report.sentence
    assert "-0.5" not in report.sentence
    chance = candidate("aligned", 0.0, noise=np.random.default_rng(1).normal(0, 0.15, 24))
    assert run(unfit, chance, by=V5).outcome == "refuse"


def test_an_unfit_baseline_does_not_open_the_way_past_a_fit_incumbent() -> None:
    unfit, serving = candidate("unadapted", 0.9, **UNFIT), candidate("incumbent", 0.4)
    assert run(unfit, serving, candidate("aligned", 0.4), by=V5).chosen == "incumbent"
    assert run(unfit, serving, candidate("aligned", 0.6), by=V5).chosen == "aligned"


@pytest.mark.parametrize("share", [0.5, 0.62, 0.77, 0.87])
def test_two_classes_that_are_not_half_and_half_are_served(share: float) -> None:
    pair = two_classes("unadapted", 0.1, share), two_classes("aligned", 0.4, share)
    report = run(*pair, by=V5)
    assert (report.outcome, report.chosen) == ("release", "aligned")
    if share > 0.6:
        assert run(*pair).outcome == "refuse"


def test_one_class_for_nearly_all_is_out_unless_the_assay_says_so() -> None:
    pair = two_classes("unadapted", 0.1, 0.95), two_classes("aligned", 0.4, 0.95)
    report = run(*pair, by=V5)
    assert report.outcome == "refuse"
    assert "at most 88%" in report.sentence or "at most 87%" in report.sentence
    own = shipped(5, health={"sources": {"lab_b": {"max_top_class_share": 0.98, "min_marginal_entropy": 0.1}}})
    assert run(*pair, by=own).chosen == "aligned"
    other = shipped(5, health={"sources": {"lab_c": {"max_top_class_share": 0.98, "min_marginal_entropy": 0.1}}})
    assert run(*pair, by=other).outcome == "refuse"


@pytest.mark.parametrize(("classes", "limit"), [(2, 0.875), (8, 0.78125), (54, 0.7546)])
def test_the_limit_is_the_same_part_of_the_room_above_even_shares(classes: int, limit: float) -> None:
    assert V5.health.largest_share(classes, "lab_b") == pytest.approx(limit, abs=1e-4)


@pytest.mark.parametrize("version", [3, 4])
def test_policies_of_before_are_named_by_the_values_of_their_file_alone(version: int) -> None:
    values = yaml.safe_load(policy_path(f"gate-v{version}").read_text(encoding="utf-8"))
    written = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert shipped(version).digest() == hashlib.sha256(written.encode()).hexdigest()


def test_policies_of_before_decide_as_before() -> None:
    assert "max_error" not in shipped(3).model_dump()["deciding"]
    assert run(BASE, candidate("coda", 0.3), by=shipped(3)).candidates[1].error is None


@pytest.mark.parametrize(
    ("section", "values", "says"),
    [
        ("health", {"max_top_class_share": 0.6}, "either max_top_class_share or max_top_class_excess"),
        ("deciding", {"min_lower_gain": 0.0}, "either max_error, or both"),
        ("deciding", {"max_error": None}, "either max_error, or both"),
        ("deciding", {"max_error": 0.0}, "greater than 0"),
    ],
)
def test_a_policy_says_one_thing(section: str, values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        shipped(5, **{section: values})


LEVELS = st.lists(st.floats(-0.2, 0.6), min_size=3, max_size=3)


@given(LEVELS, st.integers(0, 2), st.lists(st.floats(0, 0.5), min_size=9, max_size=9), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_raising_the_chosen_leaves_it_or_a_simpler_one_that_is_as_good(
    levels: list[float], which: int, rises: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    names = ("aligned", "coda", "coda+aligned")
    noises = [rng.normal(0, 0.15, 9) for _ in levels]
    base = candidate("unadapted", 0.1, noise=NOISE[:9])
    before = [candidate(name, level, noise=noise) for name, level, noise in zip(names, levels, noises, strict=True)]
    first = run(base, *before, by=V5)
    if first.chosen != names[which]:
        return
    raised = candidate(names[which], levels[which], noise=noises[which] + np.array(rises))
    second = run(base, *(raised if other.name == raised.name else other for other in before), by=V5)
    assert second.outcome == "release"
    assert names.index(second.chosen or "") <= which
