"""Guards, references and approvers: what speaks against a candidate, and when a person must decide."""

import json
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from gate_numbers import NOISE, by_treatment, candidate, features_of, guard, policy, reference, run
from hypothesis import given, settings
from hypothesis import strategies as st

from coda.config import Params
from coda.config.policy import GatePolicy, TreatmentMeasure
from coda.contracts.gate import GateReport
from coda.evaluation.gate.definitions import BY_NAME, BY_TREATMENT, evidence_of, scopes_of

MAP = "replicate_map"


def judged(name: str, agreement: float, retrieval: float, **changes: Any):
    """A candidate with an agreement and a retrieval of replicates."""
    noise = changes.get("noise", NOISE)
    return candidate(name, agreement, others={MAP: by_treatment(retrieval, noise)}, **changes)


BASE = judged("unadapted", 0.1, 0.5)


@pytest.mark.parametrize(
    ("otherwise", "outcome", "chosen"),
    [("hold", "hold", "coda"), ("veto", "keep_incumbent", "unadapted"), ("advice", "release", "coda")],
)
def test_a_contradicting_guard_does_what_the_policy_says(otherwise: str, outcome: str, chosen: str) -> None:
    by = policy(guards={MAP: guard(otherwise)})
    report = run(BASE, judged("coda", 0.3, 0.4), by=by)
    assert (report.outcome, report.chosen) == (outcome, chosen)
    objection = "The retrieval of a compound's replicates fell compared with unadapted: -0.10"
    told = report.held_because if outcome == "hold" else report.advice
    assert any(objection in line for line in told)
    assert run(BASE, judged("coda", 0.3, 0.5), by=by).outcome == "release"


def test_a_fall_must_be_clear_and_larger_than_is_tolerated() -> None:
    unclear = np.random.default_rng(3).normal(0, 0.3, 24)
    wide = candidate("coda", 0.3, others={MAP: by_treatment(0.48, unclear - unclear.mean())})
    assert run(BASE, wide, by=policy(guards={MAP: guard()})).outcome == "release"
    fallen = judged("coda", 0.3, 0.4)
    assert run(BASE, fallen, by=policy(guards={MAP: guard(max_fall=0.05)})).outcome == "hold"
    assert run(BASE, fallen, by=policy(guards={MAP: guard(max_fall=0.15)})).outcome == "release"
    few = run(BASE, fallen, by=policy(guards={MAP: guard(min_treatments=25)}))
    assert few.outcome == "release"
    score = next(item for item in few.candidates if item.name == "coda")
    assert [item.passed for item in score.compared] == [None]


@pytest.mark.parametrize("name", ["pixels", "untrained"])
def test_features_no_better_than_no_training_are_told(name: str) -> None:
    opponent = features_of(name, by_treatment(0.5))
    held = run(
        BASE, judged("coda", 0.3, 0.5), by=policy(references={name: reference()}), references=(opponent,)
    )  # fmt: skip
    assert held.outcome == "hold"
    words = {"pixels": "brightness of the stains", "untrained": "never learned anything"}[name]
    assert words in held.sentence
    assert [item.name for item in held.references] == [name]
    vetoed = run(
        BASE, judged("coda", 0.3, 0.5), by=policy(references={name: reference("veto")}), references=(opponent,)
    )  # fmt: skip
    assert (vetoed.outcome, vetoed.chosen) == ("keep_incumbent", "unadapted")
    better = run(
        BASE, judged("coda", 0.3, 0.6), by=policy(references={name: reference()}), references=(opponent,)
    )  # fmt: skip
    assert better.outcome == "release"


def test_what_needs_no_person_is_released_before_what_does() -> None:
    by = policy(guards={MAP: guard()})
    report = run(BASE, judged("aligned", 0.2, 0.6), judged("coda+aligned", 0.5, 0.3), by=by)
    assert (report.outcome, report.chosen) == ("release", "aligned")
    assert any("coda+aligned has a higher mean gain" in line and "disputed" in line for line in report.advice)


def test_too_few_compounds_are_held() -> None:
    by = policy(deciding={"min_treatments": 6})
    five, six = (
        run(candidate("unadapted", 0.1, noise=NOISE[:n]), candidate("coda", 0.5, noise=NOISE[:n]), by=by)
        for n in (5, 6)
    )
    assert (five.outcome, five.chosen) == ("hold", "coda")
    assert "Only 5 compounds" in five.sentence
    assert six.outcome == "release"


def approved_by(*names: str) -> GatePolicy:
    own = {"releases": "person", "approvers": names}
    return policy(approval={"approvers": ("Lise",), "sources": {"lab_b": own}})


def test_a_source_whose_releases_a_person_approves() -> None:
    report = run(BASE, candidate("coda", 0.3), by=approved_by("Ada", "Grace"))
    assert (report.outcome, report.chosen, report.approvers) == ("hold", "coda", ("Ada", "Grace"))
    for words in ("Ada or Grace must decide", "approved by a person", "Until then the model as it is (unadapted)"):
        assert words in report.sentence
    assert report.fit_to_predict
    assert run(BASE, candidate("coda", 0.1), by=approved_by("Ada")).outcome == "keep_incumbent"
    elsewhere = policy(approval={"sources": {"lab_c": {"releases": "person", "approvers": ("Ada",)}}})
    assert run(BASE, candidate("coda", 0.3), by=elsewhere).outcome == "release"


def test_a_person_also_approves_going_back_to_the_baseline() -> None:
    sick = candidate("incumbent", 0.9, marginal_entropy=0.2)
    report = run(BASE, sick, by=approved_by("Ada"))
    assert (report.outcome, report.chosen) == ("hold", "unadapted")
    assert "Until then the model as it is" in report.sentence
    assert run(BASE, sick).outcome == "release"


def test_held_while_nothing_fit_serves_gives_no_predictions() -> None:
    report = run(candidate("unadapted", 0.1, marginal_entropy=0.2), candidate("coda", 0.3), by=approved_by("Ada"))
    assert report.outcome == "hold"
    assert not report.fit_to_predict
    assert "no predictions are given" in report.sentence
    refused = run(candidate("unadapted", 0.1, marginal_entropy=0.2), candidate("coda", 0.0))
    assert (refused.outcome, refused.fit_to_predict) == ("refuse", False)
    assert run(BASE).fit_to_predict


def test_nobody_named_means_whoever_may_promote() -> None:
    report = run(BASE, judged("coda", 0.3, 0.4), by=policy(guards={MAP: guard()}))
    assert report.approvers == ()
    assert report.sentence.startswith("A person who may promote must decide")


def test_a_guard_compares_with_the_incumbent_too_while_it_is_fit() -> None:
    by = policy(guards={MAP: guard()})
    coda = judged("coda", 0.5, 0.55)
    fit = run(BASE, judged("incumbent", 0.3, 0.7), coda, by=by)
    assert (fit.outcome, fit.chosen) == ("hold", "coda")
    assert "fell compared with incumbent" in fit.sentence
    unfit = run(BASE, judged("incumbent", 0.3, 0.7, marginal_entropy=0.1), coda, by=by)
    assert (unfit.outcome, unfit.chosen) == ("release", "coda")


def test_what_is_not_a_new_way_is_never_called_vetoed() -> None:
    by = policy(guards={MAP: guard("veto")})
    report = run(BASE, judged("incumbent", 0.3, 0.9), judged("coda", 0.5, 0.5), by=by)
    assert (report.outcome, report.chosen) == ("keep_incumbent", "incumbent")
    told = " ".join(report.advice)
    assert "coda was not considered" in told
    assert "unadapted was not considered" not in told


def test_old_reports_are_read_and_say_what_they_knew() -> None:
    old = run(BASE, candidate("coda", 0.3)).model_dump(mode="json")
    for name in ("policy_digest", "references", "fit_to_predict", "held_because", "approvers", "scopes", "evidence"):
        old.pop(name)
    old["candidates"] = [{k: v for k, v in score.items() if k != "compared"} for score in old["candidates"]]
    old["schema_version"] = 1
    report = GateReport.parse(json.dumps(old), "gate.json")
    assert (report.schema_version, report.outcome, report.scopes, report.fit_to_predict) == (2, "release", (), True)
    refused = GateReport.parse(json.dumps({**old, "outcome": "refuse", "chosen": None}), "gate.json")
    assert not refused.fit_to_predict


def test_every_measure_states_its_fit_scope_and_its_role(demo_params: Params) -> None:
    assert set(BY_TREATMENT) == set(get_args(TreatmentMeasure))
    scopes = {scope.measure: scope for scope in scopes_of(demo_params.gate.policy, samples=300)}
    assert set(scopes) == set(BY_NAME)
    assert scopes["agreement"].role == "decides"
    assert scopes[MAP].role == "guards"
    assert scopes["rankme"].role == "health"
    assert scopes["cka_to_baseline"].role == "advice"
    assert "300 samples" in scopes["agreement"].interval
    assert scopes["rankme"].interval == "none"
    assert "ridge classifier" in scopes["batch_predictability"].fitted_on
    report = run(BASE, candidate("coda", 0.3))
    assert {scope.measure for scope in report.scopes} == set(BY_NAME)


def test_the_evidence_counts_what_was_looked_at() -> None:
    kinds = [("trt", "a"), ("trt", "b"), ("poscon", "c"), ("negcon", "DMSO"), ("negcon", "DMSO")]
    rows = pd.DataFrame(
        [
            {
                "Metadata_Source": "lab", "Metadata_Batch": batch, "Metadata_Plate": f"{batch}{plate}",
                "Metadata_Well": f"A{well:02d}", "Metadata_Treatment": name, "Metadata_pert_type": kind,
            }
            for batch in ("b1", "b2") for plate in (1, 2) for well, (kind, name) in enumerate(kinds) for _ in range(3)
        ]
    )  # fmt: skip
    found = evidence_of(rows, align_by="batch", align_wells="all")
    assert (found.compared_by, found.batches, found.plates) == ("batch", ("lab/b1", "lab/b2"), 4)
    assert (found.fields, found.wells, found.treatments, found.positive_controls) == (36, 12, 3, 1)
    assert found.negative_control_wells == 8
    assert "all wells of each batch" in found.alignment
    assert "negative controls of each plate" in evidence_of(rows, align_by="plate", align_wells="negcon").alignment


RANK = {"refuse": 0, "keep_incumbent": 1, "hold": 1, "release": 2}
LEVEL = st.floats(-0.2, 0.6)
GUARDED = {"guards": {MAP: guard(), "neighbour": guard("veto", max_fall=0.1)}, "references": {"pixels": reference()}}


@given(
    st.lists(LEVEL, min_size=4, max_size=4), st.lists(LEVEL, min_size=5, max_size=5),
    st.sampled_from(["agreement", MAP, "neighbour"]),
    st.lists(st.floats(0, 0.5), min_size=24, max_size=24), st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_raising_any_number_of_the_chosen_never_costs_it_the_choice(
    agreements: list[float], retrievals: list[float], measure: str, rises: list[float], seed: int
) -> None:
    """Whatever decides, guards or refers: for the candidates, the incumbent and the baseline alike."""
    rng = np.random.default_rng(seed)
    names = ("unadapted", "incumbent", "aligned", "coda", "coda+aligned")
    values = {
        name: {
            key: by_treatment(level, rng.normal(0, 0.1, 24))
            for key, level in (("agreement", first), (MAP, second), ("neighbour", second))
        }
        for name, first, second in zip(names, (0.1, *agreements), retrievals, strict=True)
    }
    opponent = features_of("pixels", by_treatment(0.2, rng.normal(0, 0.1, 24)))
    by = policy(**GUARDED)

    def decided() -> GateReport:
        made = []
        for name in names:
            own = values[name]
            made.append(candidate(name, 0.0, others=own))
        return run(*made, by=by, references=(opponent,))

    first = decided()
    assert first.chosen is not None
    own = values[first.chosen]
    own[measure] = {key: own[measure][key] + rise for key, rise in zip(sorted(own[measure]), rises, strict=True)}
    second = decided()
    assert second.chosen == first.chosen
    assert RANK[second.outcome] >= RANK[first.outcome]
