"""What the gate's decisions were worth, and the thresholds that follow, on made-up candidates whose truth is known."""

import numpy as np
import pytest

from coda.config.policy import GatePolicy, Health
from coda.contracts.gate import Measure
from coda.evaluation.gate.measures import CandidateMeasures
from studies.gate_calibration.calibration_gate import GateSet, gate_outcomes, gate_sets, summarise_outcomes
from studies.gate_calibration.calibration_models import AS_THEY_ARE
from studies.gate_calibration.calibration_policy import BY_INTERVAL, derive_policy, health_limits
from studies.gate_calibration.calibration_ranks import rank_table

HEALTHY = {"marginal_entropy": 0.9, "top_class_share": 0.2, "feature_spread": 0.9, "rankme": 20.0}


@pytest.fixture(scope="session")
def policy(short) -> GatePolicy:
    return short.gate.policy


def candidate(name: str, complexity: int, agreement: float, **measures: float) -> CandidateMeasures:
    """A candidate whose eight compounds all agree by about the same."""
    values = {f"t{k}": agreement + 0.001 * k for k in range(8)}
    numbers = {key: Measure(value=value, n=96) for key, value in (HEALTHY | measures).items()}
    numbers["agreement"] = Measure(value=float(np.mean(list(values.values()))), n=8)
    return CandidateMeasures(
        name=name, complexity=complexity, finite=True, classes=8, compared_by="batch", measures=numbers,
        by_treatment={"agreement": values},
    )  # fmt: skip


def made_up(name: str, agreements: dict[str, float], accuracy: dict[str, float], run: int = 0, **measures) -> GateSet:
    order = ("unadapted", "aligned", "coral", "coda", "coda+aligned", "coda+coral")
    candidates = tuple(candidate(n, order.index(n), agreements[n], **measures.get(n, {})) for n in agreements)
    adapted = frozenset(n for n in accuracy if n.startswith("coda"))
    return GateSet(run, "lab_b", 3, name, candidates, (), accuracy, adapted)


def only(outcomes):
    assert len(outcomes) == 1
    return outcomes.iloc[0]


def test_a_good_release_has_no_fault_and_its_regret_is_to_the_best(policy):
    item = made_up("coda", {"unadapted": 0.1, "aligned": 0.5}, {"unadapted": 0.4, "aligned": 0.7})
    row = only(gate_outcomes([item], policy, samples=50))
    assert (row["outcome"], row["chosen"], row["served"], row["regret"]) == ("release", "aligned", 0.7, 0.0)
    assert not row[["worse", "worse_margin", "missed", "broken_released"]].any()


@pytest.mark.parametrize(("accuracy", "by_margin"), [(0.39, False), (0.37, True)])
def test_a_release_that_is_worse_than_none_is_counted_by_the_truth(policy, accuracy, by_margin):
    item = made_up("coda", {"unadapted": 0.1, "coda": 0.5}, {"unadapted": 0.4, "coda": accuracy})
    row = only(gate_outcomes([item], policy, samples=50))
    assert row["worse"]
    assert row["worse_margin"] == by_margin
    assert row["regret"] == pytest.approx(0.4 - accuracy)


def test_a_gain_that_was_not_taken_is_missed_and_costs_regret(policy):
    item = made_up("coda", {"unadapted": 0.5, "coda": 0.1}, {"unadapted": 0.4, "coda": 0.6})
    row = only(gate_outcomes([item], policy, samples=50))
    assert (row["outcome"], row["served"]) == ("keep_incumbent", 0.4)
    assert row["missed"]
    assert row["regret"] == pytest.approx(0.2)


def test_a_refusal_counts_as_guessing(policy):
    collapsed = {"marginal_entropy": 0.1, "top_class_share": 1.0}
    item = made_up("collapsed", {"unadapted": 0.5}, {"unadapted": 0.3}, unadapted=collapsed)
    row = only(gate_outcomes([item], policy, samples=50))
    assert (row["outcome"], row["served"]) == ("refuse", 1 / 8)


def test_a_broken_model_is_accepted_only_when_it_is_the_one_released(policy):
    scores = {"unadapted": 0.4, "aligned": 0.6, "coda": 0.2}
    by_alignment = made_up("over-trained", {"unadapted": 0.1, "aligned": 0.5, "coda": 0.2}, scores)
    by_training = made_up("over-trained", {"unadapted": 0.1, "aligned": 0.2, "coda": 0.8}, scores)
    sound = made_up("coda", {"unadapted": 0.1, "aligned": 0.2, "coda": 0.8}, scores)
    outcomes = gate_outcomes([by_alignment, by_training, sound], policy, samples=50)
    assert outcomes["broken_released"].tolist() == [False, True, False]
    counts = summarise_outcomes(outcomes).set_index("candidates")
    assert counts.loc["broken", ["sets", "released", "broken_released", "worse"]].tolist() == [2, 2, 1, 1]
    assert counts.loc["all", "sets"] == counts.loc["sound", "sets"] + counts.loc["broken", "sets"] == 3
    assert counts.loc["all", "regret"] == pytest.approx(np.mean([0.0, 0.4, 0.4]))


def run_of(entropies: dict[str, tuple[float, float]], collapsed: float) -> dict:
    """A run: model -> (marginal entropy, accuracy), and a collapsed model with this entropy."""
    models = [
        {
            "model": name, "view": AS_THEY_ARE, "way": "none", "adapted": name != "unadapted", "broken": False,
            "field_accuracy": accuracy, "measures": {},
            "metrics": HEALTHY | {"marginal_entropy": entropy, "agreement": accuracy, "neighbour": -accuracy},
        }
        for name, (entropy, accuracy) in entropies.items()
    ]  # fmt: skip
    bad = {"marginal_entropy": collapsed, "top_class_share": 1.0, "feature_spread": 0.0, "rankme": 1.0}
    models.append({**models[0], "model": "collapsed", "broken": True, "field_accuracy": 0.1, "metrics": bad})
    return {"models": models}


def limit(runs: list[dict], name: str = "min_marginal_entropy", **present: float):
    values = {
        "min_marginal_entropy": 0.5, "min_feature_spread": 0.2, "min_rank_share": 0.5, "max_top_class_share": 0.6,
    } | present  # fmt: skip
    return health_limits(runs, Health(**values)).set_index("limit_of").loc[name]


def test_a_limit_that_does_its_work_stays():
    runs = [run_of({"unadapted": (0.90, 0.5), "coda": (0.80, 0.6)}, 0.30), run_of({"unadapted": (0.95, 0.5)}, 0.40)]
    row = limit(runs)
    assert (row["useful"], row["collapsed"], row["limit"]) == (0.8, 0.4, 0.5)
    for name in ("min_feature_spread", "min_rank_share", "max_top_class_share"):
        assert limit(runs, name)["limit"] == limit(runs, name)["present"]


def test_a_limit_that_costs_a_useful_model_goes_just_beyond_it():
    assert limit([run_of({"unadapted": (0.47, 0.6)}, 0.10)])["limit"] == 0.45
    assert limit([run_of({"unadapted": (0.90, 0.6)}, 0.10)], "max_top_class_share", max_top_class_share=0.1)[
        "limit"
    ] == pytest.approx(0.2)


def test_a_limit_that_lets_a_collapsed_model_pass_goes_between_it_and_the_useful_ones():
    row = limit([run_of({"unadapted": (0.90, 0.6)}, 0.60)])
    assert row["limit"] == 0.75
    assert 0.61 < limit([run_of({"unadapted": (0.64, 0.6)}, 0.61)])["limit"] < 0.64, "rounding must not let it pass"


def test_a_model_that_is_of_no_use_does_not_loosen_a_limit():
    assert limit([run_of({"unadapted": (0.90, 0.6), "coda": (0.35, 0.4)}, 0.30)])["limit"] == 0.5


def test_where_useful_and_collapsed_models_overlap_no_useful_one_is_lost():
    assert limit([run_of({"unadapted": (0.52, 0.6)}, 0.70)])["limit"] == 0.5


def test_the_rule_with_the_least_regret_wins_among_those_that_err_no_more_often(policy):
    runs = [run_of({"unadapted": (0.9, 0.4), "coda@1": (0.9, 0.5), "coda@2": (0.9, 0.6), "coda": (0.9, 0.7)}, 0.3)]
    sets = [
        # +0.015 in agreement was worth little here ...
        made_up("coda", {"unadapted": 0.100, "coda": 0.115}, {"unadapted": 0.50, "coda": 0.47}),
        # ... and a large gain was real
        made_up("coda", {"unadapted": 0.1, "coda": 0.5}, {"unadapted": 0.4, "coda": 0.7}, run=1),
    ]
    derived = derive_policy(runs, sets, rank_table(runs), policy, samples=50)
    assert derived.policy.deciding.measure == "agreement"
    assert derived.policy.deciding.min_gain == 0.02
    assert derived.policy.version == policy.version + 1
    assert len(derived.tried) == 2 * np.prod([len(values) for values in BY_INTERVAL.values()])
    assert derived.tried["regret"].min() == pytest.approx(0.0)
    assert any("min_marginal_entropy" in reason for reason in derived.reasons)


def test_where_all_rules_do_the_same_the_present_values_stay(policy):
    runs = [run_of({"unadapted": (0.9, 0.4), "coda@1": (0.9, 0.5), "coda@2": (0.9, 0.6), "coda": (0.9, 0.7)}, 0.3)]
    sets = [made_up("coda", {"unadapted": 0.1, "coda": 0.5}, {"unadapted": 0.4, "coda": 0.7})]
    derived = derive_policy(runs, sets, rank_table(runs), policy, samples=50)
    assert derived.policy.deciding == policy.deciding
    assert derived.policy.guards == policy.guards


def test_a_rule_that_is_hardly_better_is_no_reason_to_change(policy):
    runs = [run_of({"unadapted": (0.9, 0.4), "coda@1": (0.9, 0.5), "coda@2": (0.9, 0.6), "coda": (0.9, 0.7)}, 0.3)]
    little = made_up("coda", {"unadapted": 0.100, "coda": 0.115}, {"unadapted": 0.500, "coda": 0.497})
    derived = derive_policy(runs, [little], rank_table(runs), policy, samples=50)
    assert derived.tried["regret"].min() == 0
    assert derived.policy.deciding == policy.deciding


def test_what_decided_before_guards_when_another_measure_ranks_better(policy):
    runs = [run_of({"unadapted": (0.9, 0.4), "coda@1": (0.9, 0.5), "coda@2": (0.9, 0.6), "coda": (0.9, 0.7)}, 0.3)]
    for entry in runs[0]["models"]:
        accuracy = entry["field_accuracy"]
        entry["metrics"] |= {"mutual_information": accuracy, "agreement": -accuracy}
    sets = [made_up("coda", {"unadapted": 0.1, "coda": 0.5}, {"unadapted": 0.4, "coda": 0.7})]
    derived = derive_policy(runs, sets, rank_table(runs), policy, samples=50)
    assert derived.policy.deciding.measure == "mutual_information"
    assert derived.policy.guards["agreement"].otherwise == "hold"


def test_sets_are_read_back_as_the_gate_takes_them(policy):
    original = candidate("unadapted", 0, 0.3)
    run = {
        "target": "lab_b", "seed": 3, "references": {AS_THEY_ARE: []},
        "sets": {"coda": {"candidates": [0], "references": AS_THEY_ARE}},
        "models": [{"measures": original.model_dump(mode="json"), "field_accuracy": 0.5, "adapted": False}],
    }  # fmt: skip
    (item,) = gate_sets([run])
    assert item.candidates == (original,)
    assert (item.accuracy, item.adapted, item.broken) == ({"unadapted": 0.5}, frozenset(), False)
