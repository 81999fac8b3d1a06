"""The register and release steps on folders as training and adaptation leave them."""

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from conftest_registry import Trained

from coda.adaptation.candidates import Candidate, read_candidates, write_candidates
from coda.config import Params, params_digest
from coda.contracts import DataRevision, GateReport, ReleaseRecord
from coda.contracts.fingerprints import StainFingerprints, Usual
from coda.errors import ConfigError, IntegrityError, TransientError
from coda.networks import artifact
from coda.networks.extractor import save_extractor
from coda.networks.head import SOURCE_STATISTICS
from coda.quality.fingerprints import FINGERPRINTS
from coda.registry import ReleaseLog, describe, list_versions, promote, rollback
from coda.registry.comparison import compare, provenance_of, release_side
from coda.registry.drafts import WAITING, find_release, read_kept, release_name
from coda.settings import Settings
from coda.steps.register_adaptation import register_adaptation
from coda.steps.register_training import register_training
from coda.steps.release import release
from coda.steps.version import write_revisions
from coda.storage.objects import store_for
from coda.training.methods.dino.state import load_state, save_state


def revisions(folder: Path, source: str) -> Path:
    data = DataRevision(
        source=source, batch="b1", path=f"data/{source}/b1", revision="a" * 40, digest="0" * 32 + ".dir"
    )
    return write_revisions(folder / f"{source}.json", [data])


class Loop:
    """The two pipelines' last steps, on prepared folders."""

    def __init__(self, work: Path, params: Params, settings: Settings, trained: Trained, adapted: Path) -> None:
        self.work, self.params, self.settings, self.trained, self.adapted = work, params, settings, trained, adapted
        self.metrics = {"none_accuracy_field": 0.5, "none_accuracy_well": 0.6, "standardise_accuracy_field": 0.7}

    def register_training(self, run_id: str = "train-1") -> Path:
        evaluation = self.work / "evaluation"
        evaluation.mkdir(exist_ok=True)
        (evaluation / "metrics.json").write_text(json.dumps(self.metrics))
        register_training(
            self.trained.pretrained, self.trained.heads, evaluation, revisions(self.work, "lab_a"),
            self.work / f"{run_id}.json", params=self.params, settings=self.settings, run_id=run_id,
        )  # fmt: skip
        return self.work / f"{run_id}.json"

    def train(self, run_id: str = "train-1") -> ReleaseRecord:
        return self.release(self.register_training(run_id), run_id)

    def candidates(self, run_id: str) -> Path:
        folder = self.work / f"candidates-{run_id}"
        if folder.exists():
            return folder
        shutil.copytree(self.adapted, folder)
        base = ReleaseLog(self.settings).current("default")
        digests = {describe(ref, settings=self.settings).tags["alignment"]: ref.digest for ref in base.heads}
        new = artifact.folder_digest(folder / "extractor")

        def way(name: str, extractor: str, alignment: str, head: str) -> Candidate:
            return Candidate(
                name=name, extractor=extractor, alignment=alignment, head=head, head_digest=digests[head],
                extractor_digest=base.extractor.digest if extractor == "base" else new,
            )  # fmt: skip

        ways = [
            way("unadapted", "base", "none", "none"),
            way("aligned", "base", "standardise", "standardise"),
            way("coda", "adapted", "none", "none"),
            way("coda+coral", "adapted", "coral", "none"),
        ]
        write_candidates(folder, ways)
        base.write(folder / "base_release.json")
        return folder

    def register_adaptation(self, outcome: str, chosen: str | None, run_id: str = "adapt-1") -> Path:
        gate = GateReport(
            source="lab_b", batch="b1", manifest_digest="0" * 64, policy_version="v1", baseline="unadapted",
            candidates=(), outcome=outcome, chosen=chosen, sentence=f"{chosen} it is.",
        )  # fmt: skip
        gate.write(self.work / "gate.json")
        register_adaptation(
            self.candidates(run_id), self.work / "gate.json", revisions(self.work, "lab_b"),
            self.work / f"{run_id}.json", params=self.params, settings=self.settings, run_id=run_id,
        )  # fmt: skip
        return self.work / f"{run_id}.json"

    def release(self, draft: Path, run_id: str, approver: str = "gate") -> ReleaseRecord:
        out = self.work / f"released-{run_id}.json"
        record = release(draft, out, settings=self.settings, run_id=run_id, approver=approver)
        assert ReleaseRecord.read(out) == record
        return record

    def adapt(self, outcome: str, chosen: str | None, run_id: str = "adapt-1") -> ReleaseRecord:
        return self.release(self.register_adaptation(outcome, chosen, run_id), run_id)

    def serves(self, scope: str) -> str | None:
        current = ReleaseLog(self.settings).current(scope)
        return current.release_id if current else None


@pytest.fixture
def loop(tmp_path: Path, tiny_params: Params, services: Settings, trained: Trained, adapted: Path) -> Loop:
    return Loop(tmp_path, tiny_params, services, trained, adapted)


def test_training_releases_the_better_head_for_its_source_and_as_default(loop: Loop) -> None:
    record = loop.train()
    assert (record.method, record.alignment, record.source) == ("source", "standardise", "lab_a")
    assert "70.0%" in record.gate_sentence
    assert record.head.digest == artifact.folder_digest(loop.trained.heads / "standardise")
    assert {ref.digest for ref in record.heads} == {
        artifact.folder_digest(loop.trained.heads / name) for name in ("none", "standardise")
    }
    assert loop.serves("lab_a") == loop.serves("default") == record.release_id == "train-1"


@pytest.mark.parametrize(
    ("metrics", "best"),
    [
        ({"none_accuracy_field": 0.7, "standardise_accuracy_field": 0.7}, "none"),
        ({"standardise_accuracy_field": 0.1}, "standardise"),
        ({}, "none"),
        (
            {"none_accuracy_field": 0.7, "none_accuracy_well": 0.7, "standardise_accuracy_field": 0.7,
             "standardise_accuracy_well": 0.8},
            "standardise",
        ),
    ],
)  # fmt: skip
def test_ties_and_heads_that_were_not_measured(loop: Loop, metrics: dict[str, float], best: str) -> None:
    loop.metrics = metrics
    assert ReleaseRecord.read(loop.register_training()).alignment == best


def test_repeated_steps_change_nothing(loop: Loop) -> None:
    drafts = [loop.register_training().read_bytes() for _ in range(2)]
    assert drafts[0] == drafts[1]
    for _ in range(2):
        loop.train()
        loop.adapt("release", "coda")
    assert len(list_versions(loop.settings)) == 4
    log = ReleaseLog(loop.settings)
    assert [len(log.history(scope)) for scope in ("default", "lab_a", "lab_b")] == [1, 1, 1]


def test_an_adapted_release_names_all_it_came_from(loop: Loop) -> None:
    base = loop.train()
    record = loop.adapt("release", "coda+coral")
    assert (record.method, record.alignment, record.base_release) == ("coda+coral", "coral", "train-1")
    assert record.extractor.version == 2
    assert record.head.digest == artifact.folder_digest(loop.trained.heads / "none")
    assert record.heads == base.heads
    assert record.gate_digest == GateReport.read(loop.work / "gate.json").digest()
    tags = describe(record.extractor, settings=loop.settings).tags
    assert tags["line"] == base.extractor.digest
    assert tags["state_digest"] == artifact.folder_digest(loop.adapted / "state")
    assert (tags["source"], tags["base_release"], tags["parent_version"]) == ("lab_b", "train-1", "1")
    assert (loop.serves("lab_b"), loop.serves("lab_a"), loop.serves("default")) == ("adapt-1", "train-1", "train-1")


def test_versions_and_releases_carry_parameters_pairs_and_statistics(loop: Loop) -> None:
    base = loop.train()
    assert describe(base.extractor, settings=loop.settings).tags["head_versions"] == "1, 2"
    assert base.statistics_digest is None
    record = loop.adapt("release", "coda+coral")
    adapted = describe(record.extractor, settings=loop.settings)
    assert adapted.tags["head_version"] == str(record.head.version)
    assert provenance_of(adapted, settings=loop.settings)["params"] == loop.params.model_dump(mode="json")
    kept = read_kept("adapt-1", "params.json", settings=loop.settings)
    assert params_digest(Params.model_validate_json(json.dumps(kept))) == record.params_digest
    statistics = (loop.trained.heads / "none" / SOURCE_STATISTICS).read_bytes()
    assert record.statistics_digest == hashlib.sha256(statistics).hexdigest()
    other = record.model_copy(update={"release_id": "mixed", "statistics_digest": "0" * 64})
    with pytest.raises(ConfigError, match="source_statistics"):
        promote(other, "lab_b", by="me", reason="oops", settings=loop.settings)
    sides = [release_side(item, settings=loop.settings) for item in (base, record)]
    found = compare(*sides, settings=loop.settings)
    rows = {(row.section, row.name): (row.left, row.right) for row in found.rows}
    assert rows["fact", "alignment"] == ("standardise", "coral")
    assert rows["data", "lab_b/b1"][0] == "-"
    assert not any(section == "parameter" for section, _ in rows)
    assert {block for block, distance in found.weights["extractor"].items() if distance} == {"cls_token"}


def test_the_second_adapted_extractor_is_registered_from_its_own_folders(loop: Loop) -> None:
    loop.train()
    folder = loop.candidates("adapt-1")
    candidates = read_candidates(folder)
    state = load_state(loop.trained.pretrained / "state")
    with torch.no_grad():
        state.teacher.vit.cls_token.add_(2.0)
    digest = save_extractor(folder / "extractor_oda", state.teacher)
    save_state(folder / "state_oda", state)
    coda = next(candidate for candidate in candidates if candidate.name == "coda")
    second = coda.model_copy(update={"name": "oda", "extractor": "adapted_oda", "extractor_digest": digest})
    write_candidates(folder, [*candidates, second])
    record = loop.adapt("release", "oda")
    assert record.method == "oda"
    assert record.extractor.digest == digest != coda.extractor_digest
    tags = describe(record.extractor, settings=loop.settings).tags
    assert tags["state_digest"] == artifact.folder_digest(folder / "state_oda")


def test_alignment_alone_registers_no_new_version(loop: Loop) -> None:
    base = loop.train()
    record = loop.adapt("release", "aligned")
    assert record.extractor == base.extractor
    assert record.alignment == "standardise"
    assert len(list_versions(loop.settings)) == 3
    assert loop.serves("lab_b") == "adapt-1"


@pytest.mark.parametrize("outcome", ["keep_incumbent", "refuse"])
def test_the_incumbent_stays(loop: Loop, outcome: str) -> None:
    loop.train()
    first = loop.adapt("release", "aligned", "adapt-1")
    assert loop.adapt(outcome, None, "adapt-2") == first
    assert len(ReleaseLog(loop.settings).history("lab_b")) == 1
    assert len(list_versions(loop.settings)) == 3


def test_the_baseline_takes_over_from_an_incumbent_that_is_not_fit(loop: Loop) -> None:
    base = loop.train()
    loop.adapt("release", "coda", "adapt-1")
    versions = len(list_versions(loop.settings))
    record = loop.adapt("release", "unadapted", "adapt-2")
    assert (record.method, record.alignment, record.extractor) == ("unadapted", "none", base.extractor)
    assert record.head.digest == artifact.folder_digest(loop.trained.heads / "none")
    assert loop.serves("lab_b") == "adapt-2"
    assert len(list_versions(loop.settings)) == versions


def test_an_incumbent_made_for_another_source_stays_too(loop: Loop) -> None:
    first = loop.train("train-1")
    promote(first, "lab_b", by="Ada", reason="same microscope", settings=loop.settings)
    folder = loop.candidates("adapt-1")
    first.write(folder / "incumbent_release.json")
    loop.metrics = {"none_accuracy_field": 0.9}
    assert loop.train("train-2").release_id == "train-2"
    assert loop.adapt("keep_incumbent", "incumbent") == first
    assert (loop.serves("lab_b"), loop.serves("lab_a")) == ("train-1", "train-2")


def test_a_pointer_that_was_moved_meanwhile_stays_moved(loop: Loop) -> None:
    loop.train()
    first = loop.adapt("release", "aligned", "adapt-1")
    second = loop.adapt("release", "coda", "adapt-2")
    second.write(loop.candidates("adapt-3") / "incumbent_release.json")
    rollback("lab_b", by="Ada", reason="worse", settings=loop.settings)
    draft = loop.register_adaptation("keep_incumbent", "incumbent", "adapt-3")
    assert ReleaseRecord.read(draft) == second
    assert loop.release(draft, "adapt-3") == first
    assert loop.serves("lab_b") == "adapt-1"


def test_a_new_source_that_keeps_its_incumbent_gets_the_base_and_the_raw_head(loop: Loop) -> None:
    base = loop.train()
    record = loop.adapt("keep_incumbent", "unadapted")
    assert (record.method, record.alignment, record.extractor) == ("unadapted", "none", base.extractor)
    assert record.head.digest == artifact.folder_digest(loop.trained.heads / "none")
    assert loop.serves("lab_b") == "adapt-1"


def test_a_new_source_that_is_refused_gets_no_pointer_of_its_own(loop: Loop) -> None:
    base = loop.train()
    assert loop.adapt("refuse", None) == base
    assert loop.serves("lab_b") is None
    assert find_release("adapt-1", settings=loop.settings) is None


def test_a_held_release_waits_for_a_person(loop: Loop) -> None:
    base = loop.train()
    draft = loop.register_adaptation("hold", "coda")
    assert ReleaseRecord.read(draft).approver == WAITING
    assert loop.release(draft, "adapt-1") == base
    assert loop.serves("lab_b") is None
    # of every run there are times of its steps, one of them under the name of the draft
    store_for(loop.settings.platform, loop.settings).put("runs/adapt-0/steps/release.json", b"{}")
    waiting = find_release("adapt-1", settings=loop.settings)
    assert waiting == ReleaseRecord.read(draft)
    approved = loop.release(draft, "adapt-1", approver="Ada")
    assert approved.approver == "Ada"
    assert loop.serves("lab_b") == "adapt-1"


def test_a_repeated_release_does_not_undo_a_rollback(loop: Loop) -> None:
    loop.train()
    loop.adapt("release", "aligned", "adapt-1")
    loop.adapt("release", "coda", "adapt-2")
    rollback("lab_b", by="Ada", reason="worse", settings=loop.settings)
    assert loop.adapt("release", "coda", "adapt-2").release_id == "adapt-1"
    assert loop.serves("lab_b") == "adapt-1"


def test_the_base_may_have_moved_on_meanwhile(loop: Loop) -> None:
    loop.train("train-1")
    loop.candidates("adapt-1")
    loop.metrics = {"none_accuracy_field": 0.9}
    loop.train("train-2")
    record = loop.adapt("release", "coda", "adapt-1")
    assert record.base_release == "train-1"
    assert loop.serves("default") == "train-2"


def test_other_candidates_than_judged_are_refused(loop: Loop) -> None:
    loop.train()
    folder = loop.candidates("adapt-1")
    with pytest.raises(IntegrityError, match="best of all"):
        loop.register_adaptation("release", "best of all")
    known = json.loads((folder / "candidates.json").read_text())
    for change, message in (
        ({"extractor_digest": "1" * 64}, "not the one that was judged"),
        ({"head_digest": "1" * 64}, "head that is not registered"),
    ):
        write_candidates(folder, [Candidate.model_validate({**item, "alarms": (), **change}) for item in known])
        with pytest.raises(IntegrityError, match=message):
            loop.register_adaptation("release", "coda")
    write_candidates(folder, [Candidate.model_validate({**item, "alarms": ()}) for item in known])
    base = ReleaseRecord.read(folder / "base_release.json")
    base.model_copy(update={"created_at": datetime.now(UTC)}).write(folder / "base_release.json")
    with pytest.raises(IntegrityError, match="registered release"):
        loop.register_adaptation("release", "coda")
    assert loop.serves("lab_b") is None


def test_what_training_must_bring(loop: Loop) -> None:
    (loop.work / "evaluation").mkdir()
    arguments = {"params": loop.params, "settings": loop.settings, "run_id": "r"}
    folders = (loop.trained.pretrained, loop.trained.heads, loop.work / "evaluation")
    with pytest.raises(IntegrityError, match=r"metrics\.json"):
        register_training(*folders, revisions(loop.work, "lab_a"), loop.work / "o.json", **arguments)
    (loop.work / "evaluation" / "metrics.json").write_text("{}")
    with pytest.raises(ConfigError, match="data revision"):
        register_training(*folders, write_revisions(loop.work / "no.json", []), loop.work / "o.json", **arguments)
    with pytest.raises(IntegrityError, match="no head"):
        register_training(
            folders[0], loop.work, folders[2], revisions(loop.work, "lab_a"), loop.work / "o.json", **arguments
        )
    assert list_versions(loop.settings) == []


def test_a_registration_cut_short_is_taken_up_again(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    from coda.steps import register_training as step

    register = step.register_head

    def dies(model: Path, *rest: object, **more: object) -> object:
        if model.name == "standardise":
            raise TransientError("MLflow went away.")
        return register(model, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(step, "register_head", dies)
        with pytest.raises(TransientError):
            loop.register_training()
    assert len(list_versions(loop.settings)) == 2
    assert loop.serves("default") is None
    loop.train()
    assert len(list_versions(loop.settings)) == 3


def test_release_ids_are_safe_names() -> None:
    assert release_name("adapt-lab_b-b1-0123") == "adapt-lab_b-b1-0123"
    odd = [release_name(name) for name in ("a/b", "a b", "ü", "_x", "x" * 300, "y" * 300)]
    assert len(set(odd)) == len(odd)
    for name in odd:
        ReleaseRecord.model_fields["release_id"]
        assert 1 <= len(name) <= 100
        assert name[0].isalnum()


def test_promoting_by_hand_a_release_of_the_log(loop: Loop) -> None:
    loop.train()
    record = find_release("train-1", settings=loop.settings)
    assert record is not None
    assert promote(record, "lab_z", by="Ada", reason="try", settings=loop.settings).sequence == 1
    assert find_release("nothing", settings=loop.settings) is None


def test_a_release_says_what_the_stains_looked_like_and_those_adapted_from_it_do(loop: Loop) -> None:
    assert loop.train("before").stains is None
    stains = StainFingerprints(
        channels=("DNA",), plates=2, fields=9, statistics={"focus_DNA": Usual(usual=-3, spread=1)}
    )
    path = stains.write(loop.trained.heads / FINGERPRINTS)
    try:
        assert loop.train().stains == stains
    finally:
        path.unlink()
    assert loop.adapt("release", "aligned").stains == stains
