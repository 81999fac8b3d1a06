"""Garbage: what goes, what must never go, and what a run that is under way keeps. The clock is a parameter."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest_registry import Trained, provenance

from coda.contracts import ReleaseRecord
from coda.errors import IntegrityError, TransientError
from coda.registry import EXTRACTOR, ReleaseLog, list_versions, promote, register_extractor, rollback, verify_release
from coda.registry.artifacts import stored_models
from coda.registry.drafts import WAITING, keep_draft
from coda.registry.garbage import Garbage, collect, find_garbage
from coda.registry.mlflow_client import connect, experiment_id
from coda.settings import Settings
from coda.storage.data_registry import commit_batch, create_registry, fetch_batch
from coda.storage.objects import ObjectStore, store_for
from coda.storage.programs import git

Make = Callable[..., ReleaseRecord]


@pytest.fixture
def settings(services: Settings) -> Settings:
    create_registry(Path(services.data_registry), services.data_remote)
    return services


@pytest.fixture
def later() -> datetime:
    """A grace limit that everything of this test is older than."""
    return datetime.now(UTC) + timedelta(days=1)


def names(found: list[Garbage]) -> set[tuple[str, str]]:
    return {(item.kind, item.name) for item in found}


def files(settings: Settings) -> dict[Path, bytes]:
    root = Path(settings.mlflow_artifacts.removeprefix("file://"))
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def adapt(settings: Settings, base: ReleaseRecord, adapted: Path, run_id: str) -> ReleaseRecord:
    """A release of an adapted extractor of its own run, as a draft in hand."""
    facts = replace(provenance(run_id, "lab_b"), remarks={"parent_version": base.extractor.version})
    ref = register_extractor(
        adapted / "extractor", adapted / "state", facts, settings=settings, line=base.extractor.digest
    )
    return base.model_copy(update={"release_id": run_id, "run_id": run_id, "source": "lab_b", "extractor": ref})


def test_what_ever_served_stays_and_the_rest_goes(
    settings: Settings, release_of: Make, trained: Trained, adapted: Path, later: datetime, tmp_path: Path
) -> None:
    base = release_of(trained)
    promote(base, "default", by="gate", reason="good", settings=settings)
    for run in ("served", "lost"):
        record = adapt(settings, base, adapted, run)
        keep_draft(record, tmp_path / run, settings=settings)
        if run == "served":
            promote(record, "lab_b", by="gate", reason="good", settings=settings)
            promote(base.model_copy(update={"release_id": "rel-2"}), "lab_b", by="Ada", reason="x", settings=settings)
    store = store_for(settings.platform, settings)
    for run in ("served", "lost"):
        store.put(f"runs/{run}/candidates/coda.parquet", b"12345")
        store.put(f"runs/{run}/steps/release.json", b'{"name": "release", "started": 1.0, "seconds": 2.0}')
    young = datetime.now(UTC) - timedelta(hours=1)
    assert find_garbage(settings=settings, before=young) == []
    found = find_garbage(settings=settings, before=later)
    assert names(found) == {
        ("draft", "runs/lost/release.json"), ("candidates", "runs/lost/candidates/"), ("version", "coda-extractor/3"),
    }  # fmt: skip
    size = next(item.size for item in found if item.kind == "version")
    before = files(settings)
    assert collect(found, settings=settings, before=later) == []
    gone = {path: content for path, content in before.items() if path not in files(settings)}
    assert sum(map(len, gone.values())) == size
    assert find_garbage(settings=settings, before=later) == []
    assert [item.ref.version for item in list_versions(settings) if item.name == EXTRACTOR] == [1, 2]
    for scope in ReleaseLog(settings).scopes():
        for entry in ReleaseLog(settings).history(scope):
            verify_release(entry.release, settings=settings)
    rollback("lab_b", by="Ada", reason="worse", settings=settings)  # a past release can still come back


def test_a_held_draft_waits_as_long_as_it_must(
    settings: Settings, release_of: Make, trained: Trained, adapted: Path, later: datetime, tmp_path: Path
) -> None:
    base = release_of(trained)
    promote(base, "default", by="gate", reason="good", settings=settings)
    draft = adapt(settings, base, adapted, "held").model_copy(update={"approver": WAITING})
    keep_draft(draft, tmp_path / "draft", settings=settings)
    assert find_garbage(settings=settings, before=later) == []
    found = find_garbage(settings=settings, before=later, held=True)
    assert names(found) == {("draft", "runs/held/release.json"), ("version", "coda-extractor/2")}
    # a person promotes it between the list and the deletion: it stays
    promote(draft.model_copy(update={"approver": "Ada"}), "lab_b", by="Ada", reason="seen", settings=settings)
    assert collect(found, settings=settings, before=later, held=True) == []
    verify_release(ReleaseLog(settings).current("lab_b"), settings=settings)


def test_a_parent_stays_for_its_descendants(
    settings: Settings, release_of: Make, trained: Trained, adapted: Path, later: datetime
) -> None:
    base = release_of(trained)
    record = adapt(settings, base, adapted, "served").model_copy(update={"heads": (base.head,)})
    promote(record, "lab_b", by="gate", reason="good", settings=settings)
    other = next(ref for ref in base.heads if ref != base.head)
    assert names(find_garbage(settings=settings, before=later)) == {("version", f"coda-head/{other.version}")}


def test_files_of_a_released_version_that_somebody_deleted_stay(
    settings: Settings, release_of: Make, trained: Trained, later: datetime
) -> None:
    base = release_of(trained)
    promote(base, "default", by="gate", reason="good", settings=settings)
    connect(settings).delete_model_version("coda-head", str(base.head.version))
    assert find_garbage(settings=settings, before=later) == []


def test_artifacts_of_a_registration_that_broke_off_go_later(
    settings: Settings, trained: Trained, later: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    folder = trained.pretrained / "extractor"
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", broken)
        with pytest.raises(TransientError):
            register_extractor(folder, None, provenance(), settings=settings)
    assert find_garbage(settings=settings, before=datetime.now(UTC) - timedelta(minutes=5)) == []
    found = find_garbage(settings=settings, before=later)
    assert [item.kind for item in found] == ["artifacts"]
    collect(found, settings=settings, before=later)
    assert files(settings) == {}
    assert stored_models(settings=settings) == []
    assert register_extractor(folder, None, provenance(), settings=settings).version == 1


def test_a_deletion_that_breaks_off_is_made_good_by_repeating(
    settings: Settings, release_of: Make, trained: Trained, later: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    release_of(trained)  # registered, and named by nothing
    found = find_garbage(settings=settings, before=later)
    assert [item.kind for item in found] == ["version"] * 3

    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "delete_logged_model", broken)
        with pytest.raises(TransientError):
            collect(found, settings=settings, before=later)
    again = find_garbage(settings=settings, before=later)
    assert sorted(item.kind for item in again) == ["artifacts", "version", "version"]
    collect(again, settings=settings, before=later)
    assert find_garbage(settings=settings, before=later) == []
    assert files(settings) == {}


def test_models_of_other_people_are_not_ours_to_delete(settings: Settings, release_of: Make, trained: Trained,
                                                       later: datetime) -> None:  # fmt: skip
    release_of(trained)
    client = connect(settings)
    client.create_logged_model(experiment_id(client, settings), name="ada")
    assert len(find_garbage(settings=settings, before=later)) == 3


def test_checkpoints_that_nobody_resumed(settings: Settings, later: datetime) -> None:
    folder = Path(settings.checkpoints) / "run-9" / "adapt"
    folder.mkdir(parents=True)
    (folder / "state").write_bytes(b"1234")
    remote = settings.model_copy(update={"checkpoints": f"{settings.platform}/checkpoints"})
    store_for(remote.checkpoints, remote).put("run-9/adapt/000001/state", b"1234")
    for place in (settings, remote):
        assert find_garbage(settings=place, before=datetime.now(UTC) - timedelta(minutes=5)) == []
        found = find_garbage(settings=place, before=later)
        assert [(item.kind, item.name, item.size) for item in found] == [("checkpoint", "run-9", 4)]
        collect(found, settings=place, before=later)
        assert find_garbage(settings=place, before=later) == []
    assert not folder.exists()


def batch(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "index.parquet").write_bytes(content)
    (folder / "shared").write_bytes(b"the same in every batch")
    return folder


def test_data_that_a_batch_or_a_release_names_stays(
    settings: Settings, release_of: Make, trained: Trained, later: datetime, tmp_path: Path
) -> None:
    first, second, third = (
        commit_batch(batch(tmp_path / name, name.encode()), "lab_a", name, settings=settings, run_id="r")
        for name in ("b1", "b2", "b3")
    )
    commit_batch(batch(tmp_path / "b1-again", b"b1 anew"), "lab_a", "b1", settings=settings, run_id="r")
    record = release_of(trained).model_copy(update={"data": (second,)})
    promote(record, "default", by="gate", reason="good", settings=settings)
    store_for(settings.data_remote, settings).put("files/md5/ab/cdef", b"pushed by a run that ended too early")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", settings.data_registry, str(clone))
    git(clone, "rm", "--quiet", "data/lab_a/b2.dvc", "data/lab_a/b3.dvc")
    git(clone, "-c", "user.name=Ada", "-c", "user.email=a@b", "commit", "--quiet", "-m", "Consent withdrawn")
    git(clone, "push", "--quiet", "origin", "HEAD")
    found = find_garbage(settings=settings, before=later)
    assert {item.kind for item in found} == {"data"}
    collect(found, settings=settings, before=later)
    assert find_garbage(settings=settings, before=later) == []
    for kept in (first, second):  # an older version of a listed batch, and a removed batch that a release came from
        content = fetch_batch(kept, tmp_path / "fetched", settings=settings) / "index.parquet"
        assert content.read_bytes() == kept.batch.encode()
    assert len(found) == 3  # the stray object; the third batch's list and its one file that no other batch shares
    with pytest.raises(IntegrityError, match="b3"):
        fetch_batch(third, tmp_path / "fetched", settings=settings)


def withdraw(settings: Settings, folder: Path, *batches: str) -> None:
    """Take batches out of the registry's newest commit, as a person does."""
    git(folder, "clone", "--quiet", settings.data_registry, "withdrawing")
    clone = folder / "withdrawing"
    git(clone, "rm", "--quiet", *(f"data/lab_a/{name}.dvc" for name in batches))
    git(clone, "-c", "user.name=Ada", "-c", "user.email=a@b", "commit", "--quiet", "-m", "Consent withdrawn")
    git(clone, "push", "--quiet", "origin", "HEAD")


def test_data_that_only_a_registered_ancestor_was_trained_on_stays(
    settings: Settings, release_of: Make, trained: Trained, adapted: Path, later: datetime, tmp_path: Path
) -> None:
    """A release names the data of its own run; the extractor it was adapted from was trained on others."""
    kept, lost = (
        commit_batch(batch(tmp_path / name, name.encode()), "lab_a", name, settings=settings, run_id="r")
        for name in ("b1", "b2")
    )
    base = release_of(trained)
    facts = replace(provenance("trained-on-b1"), data=(kept,))
    parent = register_extractor(
        trained.pretrained / "extractor", trained.pretrained / "state", facts, settings=settings
    )
    record = adapt(settings, base.model_copy(update={"extractor": parent}), adapted, "served")
    promote(record.model_copy(update={"heads": (base.head,)}), "lab_b", by="gate", reason="good", settings=settings)
    withdraw(settings, tmp_path, "b1", "b2")
    young = datetime.now(UTC) - timedelta(hours=1)
    assert [item for item in find_garbage(settings=settings, before=young) if item.kind == "data"] == []
    collect(find_garbage(settings=settings, before=later), settings=settings, before=later)
    content = fetch_batch(kept, tmp_path / "fetched", settings=settings) / "index.parquet"
    assert content.read_bytes() == b"b1"
    with pytest.raises(IntegrityError, match="b2"):
        fetch_batch(lost, tmp_path / "fetched", settings=settings)


def test_an_object_that_is_named_again_while_it_is_deleted_is_reported(
    settings: Settings, later: datetime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = commit_batch(batch(tmp_path / "b1", b"1"), "lab_a", "b1", settings=settings, run_id="r")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", settings.data_registry, str(clone))
    git(clone, "rm", "--quiet", "data/lab_a/b1.dvc")
    git(clone, "-c", "user.name=Ada", "-c", "user.email=a@b", "commit", "--quiet", "-m", "Removed")
    git(clone, "push", "--quiet", "origin", "HEAD")
    found = find_garbage(settings=settings, before=later)
    assert len(found) == 3
    delete, brought = ObjectStore.delete, []

    def delete_and_bring_again(self: ObjectStore, key: str) -> None:
        if not brought:
            brought.append(key)
            commit_batch(tmp_path / "b1", "lab_a", "b1", settings=settings, run_id="again")
        delete(self, key)

    monkeypatch.setattr(ObjectStore, "delete", delete_and_bring_again)
    problems = collect(found, settings=settings, before=later)
    assert {problem.found for problem in problems} == {"deleted"}
    with pytest.raises(IntegrityError):
        fetch_batch(revision, tmp_path / "fetched", settings=settings)
    monkeypatch.undo()
    commit_batch(tmp_path / "b1", "lab_a", "b1", settings=settings, run_id="as the remedy says")
    assert (fetch_batch(revision, tmp_path / "fetched", settings=settings) / "index.parquet").read_bytes() == b"1"
