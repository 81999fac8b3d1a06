"""Model cards: what a reader must find, and that nothing in a record breaks the Markdown."""

from datetime import UTC, datetime

from conftest_registry import Trained

from coda.config import Params
from coda.contracts import CandidateScore, DataRevision, GateReport, Measure, ReleaseRecord
from coda.networks.artifact import load
from coda.registry.cards import release_card, version_card

TAGS = {
    "kind": "extractor", "digest": "a" * 64, "line": "b" * 64, "source": "lab_b", "channels": "DNA,ER", "width": "24",
    "method": "coda", "base_release": "train-1", "parent_version": "1", "gate": "Better by 0.03.", "alignment": "none",
}  # fmt: skip
DATA = DataRevision(source="lab_b", batch="b1", path="data/lab_b/b1", revision="a" * 40, digest="0" * 32 + ".dir")


def report() -> GateReport:
    def score(name: str, value: float, reasons: tuple[str, ...] = ()) -> CandidateScore:
        gain = Measure(value=value, low=value - 0.01, high=value + 0.01, n=20)
        return CandidateScore(name=name, healthy=not reasons, health_reasons=reasons, measures={}, gain=gain)

    return GateReport(
        source="lab_b", batch="b1", manifest_digest="0" * 64, policy_version="v1", baseline="unadapted",
        candidates=(score("coda", 0.031), score("oda", -0.5, ("tokens | collapsed",))), outcome="release",
        chosen="coda", sentence="Better by 0.03.", advice=("Only 20 treatments.",),
    )  # fmt: skip


def test_an_adapted_extractor_says_what_it_is_for_and_what_is_not_known() -> None:
    origin = {
        "data": [DATA.model_dump(mode="json")],
        "params": {"seed": 7},
        "gate_report": {**report().model_dump(mode="json"), "a_field_of_a_later_version": 1},
    }
    card = version_card(
        "coda-extractor", TAGS, origin, {"arch": "vit_small", "overrides": {}}, 2, ["lab_b since March"]
    )
    for words in (
        "# coda-extractor version 2", "**lab_b**", "lab_b since March", "| lab_b/b1 | `aaaaaaaaaaaa` |", "seed: 7",
        "No label was used", "| coda (chosen) | yes | 0.031 [0.021, 0.041] |", "tokens \\| collapsed",
        "accuracy on the source it serves is not known", "Gate: Only 20 treatments.", "parent version: `1`",
    ):  # fmt: skip
        assert words in card, words
    tables = [line for line in card.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {3, 4}


def test_a_head_without_a_measurement_says_so(trained: Trained) -> None:
    _, config = load(trained.heads / "none")
    tags = {**TAGS, "kind": "head", "method": "source"}
    del tags["base_release"], tags["gate"]
    unmeasured = version_card("coda-head", tags, {}, config)
    assert "accuracy was never measured" in unmeasured
    assert "3 classes: actin, kinase, tubulin" in unmeasured
    measured = version_card("coda-head", {**tags, "none_accuracy_field": "0.7"}, {}, config)
    assert "never measured" not in measured
    assert "| none_accuracy_field | 0.700 |" in measured


def test_a_release_names_its_pair_and_its_approver(demo_params: Params) -> None:
    ref = {"name": "coda-extractor", "version": 2, "digest": "c" * 64}
    record = ReleaseRecord(
        release_id="adapt-1", source="lab_b", created_at=datetime(2026, 3, 3, tzinfo=UTC), method="coda+coral",
        extractor=ref, head={**ref, "name": "coda-head", "digest": "d" * 64}, alignment="coral", data=(DATA,),
        base_release="train-1", run_id="adapt-1", params_digest="0" * 64, gate_sentence="Better by 0.03.",
        gate_digest=report().digest(), statistics_digest="e" * 64, approver="Ada",
    )  # fmt: skip
    card = release_card(record, report().model_dump(mode="json"), [], demo_params.model_dump(mode="json"))
    for words in ("c" * 64, "d" * 64, "e" * 64, report().digest(), "Approved by: Ada", "never promoted", "`train-1`"):
        assert words in card, words
    assert "report was not kept" in release_card(record, None, [], {})
    trained = record.model_copy(update={"gate_digest": None, "base_release": None})
    assert "No gate judged it" in release_card(trained, None, [], {})
