"""The data registry with real Git and real DVC, its bytes in moto."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from servers import Moto, free_port

from coda.contracts import DataRevision
from coda.errors import ConfigError, IntegrityError, TransientError
from coda.settings import Settings
from coda.storage.data_registry import (
    BatchToCommit,
    commit_batch,
    commit_batches,
    create_registry,
    fetch_batch,
    fetch_batches,
    list_batches,
)


@pytest.fixture(scope="module")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry as `create_registry` leaves it; making one takes DVC half a second, copying it none."""
    path = tmp_path_factory.mktemp("registry") / "data-registry.git"
    create_registry(path, "s3://replaced-by-the-settings/dvc")
    return path


@pytest.fixture(params=["created"])
def services(moto_server: Moto, tmp_path: Path, empty_registry: Path, request: pytest.FixtureRequest) -> Settings:
    settings = moto_server.settings(tmp_path)
    if request.param == "created":
        shutil.copytree(empty_registry, settings.data_registry)
    else:  # an empty repository at some Git server: the first batch sets it up
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", settings.data_registry], check=True)
    return settings


def make_batch(folder: Path, text: str) -> Path:
    (folder / "examples").mkdir(parents=True)
    (folder / "manifest.json").write_text(text)
    (folder / "plate 1.ome.zarr.zip").write_bytes(hashlib.sha256(text.encode()).digest() * 10)
    (folder / "examples" / "ü.npz").write_bytes(text.encode() * 3)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def git(settings: Settings, *arguments: str) -> str:
    command = ["git", "-C", settings.data_registry, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_batch_is_versioned_once_and_comes_back(services: Settings, tmp_path: Path) -> None:
    folder = make_batch(tmp_path / "d" / "lab_a" / "b1", "one")
    before = contents(folder)
    first = commit_batch(folder, "lab_a", "b1", settings=services, run_id="r1")
    assert (first.path, first.digest[-4:]) == ("data/lab_a/b1", ".dir")
    assert commit_batch(folder, "lab_a", "b1", settings=services, run_id="r2") == first
    assert git(services, "rev-list", "--count", "main").strip() == "2"
    assert "run: r1" in git(services, "log", "-1", "--format=%B", first.revision)
    # the folder that was versioned is what it was, and can be written again
    assert contents(folder) == before
    assert all(path.stat().st_mode & stat.S_IWUSR for path in folder.rglob("*"))
    assert [path.name for path in folder.parent.iterdir()] == ["b1"]

    (folder / "manifest.json").write_text("two")
    second = commit_batch(folder, "lab_a", "b1", settings=services, run_id="r3")
    assert second.revision != first.revision
    assert second.digest != first.digest
    assert contents(fetch_batch(first, tmp_path / "old", settings=services)) == before
    assert contents(fetch_batch(second, tmp_path / "new", settings=services)) == contents(folder)
    assert list_batches("lab_a", settings=services) == [second]
    assert list_batches("lab_a", settings=services, revision=first.revision) == [first]


@pytest.mark.parametrize("services", ["bare"], indirect=True)
def test_dvc_itself_finds_the_bytes(services: Settings, tmp_path: Path) -> None:
    """A person with nothing but git, dvc and the address of the store gets the same folder."""
    create_registry(Path(services.data_registry), services.data_remote)
    create_registry(Path(services.data_registry), services.data_remote)
    folder = make_batch(tmp_path / "d" / "b1", "one")
    commit_batch(folder, "lab_a", "b1", settings=services, run_id="r1")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", services.data_registry, str(clone)], check=True)
    environment = {**os.environ, "AWS_ENDPOINT_URL_S3": services.s3_endpoint, "DVC_NO_ANALYTICS": "1"}
    subprocess.run([sys.executable, "-m", "dvc", "pull", "-q"], cwd=clone, env=environment, check=True)
    assert contents(clone / "data" / "lab_a" / "b1") == contents(folder)
    tracked = git(services, "ls-tree", "-r", "--name-only", "main")
    assert "data/lab_a/b1.dvc" in tracked
    assert not any("manifest" in name or "config.local" in name for name in tracked.split())
    config = git(services, "show", "main:.dvc/config").lower()
    assert "secret" not in config
    assert "analytics = false" in config


def test_batches_are_listed_in_the_order_they_came(services: Settings, tmp_path: Path) -> None:
    made = {name: make_batch(tmp_path / "d" / name, name) for name in ("z", "b", "a")}
    first = commit_batch(made["z"], "lab", "z", settings=services, run_id="1")
    both = [BatchToCommit("lab", "b", made["b"]), BatchToCommit("other", "a", made["a"])]
    later = commit_batches(both, settings=services, run_id="2")
    (made["z"] / "manifest.json").write_text("again")
    newest = commit_batch(made["z"], "lab", "z", settings=services, run_id="3")
    assert list_batches("lab", settings=services) == [newest, later[0]]
    assert list_batches("other", settings=services) == [later[1]]
    assert list_batches("nobody", settings=services) == []
    folders = fetch_batches([first, later[1]], tmp_path / "out", settings=services)
    assert [(folder / "manifest.json").read_text() for folder in folders] == ["z", "a"]


@pytest.mark.parametrize("services", ["bare"], indirect=True)
def test_three_writers_at_once_lose_nothing(services: Settings, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from coda.settings import read_settings\n"
        "from coda.storage.data_registry import commit_batch\n"
        "folder = Path(sys.argv[1])\n"
        "print(commit_batch(folder, 'lab', folder.name, settings=read_settings(), run_id='r').model_dump_json())\n"
    )
    folders = [make_batch(tmp_path / "d" / f"b{number}", f"content {number}") for number in range(3)]
    environment = {**os.environ, **services.environment}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(folder)], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for folder in folders
    ]  # fmt: skip
    answers = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], answers
    revisions = [DataRevision.model_validate(json.loads(out)) for out, _ in answers]
    assert {item.batch for item in list_batches("lab", settings=services)} == {"b0", "b1", "b2"}
    fetched = fetch_batches(revisions, tmp_path / "out", settings=services)
    assert [contents(path) for path in fetched] == [contents(path) for path in folders]


def test_a_lost_push_is_repeated_on_top(services: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else pushes between our clone and our push, even the same batch: both commits stay."""
    from coda.storage.clone import Clone

    mine, theirs = (make_batch(tmp_path / name / "b", name) for name in ("mine", "theirs"))
    ahead = Clone._pushed
    told = []

    def late(clone: Clone) -> bool:
        if not told:
            told.append(1)
            commit_batch(theirs, "lab", "b", settings=services, run_id="theirs")
        return ahead(clone)

    monkeypatch.setattr(Clone, "_pushed", late)
    revision = commit_batch(mine, "lab", "b", settings=services, run_id="mine")
    assert git(services, "rev-list", "--count", "main").strip() == "3"
    assert list_batches("lab", settings=services) == [revision]
    assert contents(fetch_batch(revision, tmp_path / "o", settings=services)) == contents(mine)


def test_damaged_bytes_and_records_are_refused_by_name(services: Settings, tmp_path: Path) -> None:
    folder = make_batch(tmp_path / "d" / "b1", "one")
    revision = commit_batch(folder, "lab", "b1", settings=services, run_id="r")
    for change in ({"digest": "0" * 32 + ".dir"}, {"revision": "0" * 40}, {"path": "data/lab/b2"}):
        with pytest.raises(IntegrityError):
            fetch_batch(revision.model_copy(update=change), tmp_path / "out", settings=services)
    digest = hashlib.md5(b"one", usedforsecurity=False).hexdigest()
    bucket, prefix = services.data_remote.removeprefix("s3://").split("/")
    key = f"{prefix}/files/md5/{digest[:2]}/{digest[2:]}"
    client = boto3.client("s3", endpoint_url=services.s3_endpoint, region_name="us-east-1")
    assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"one"
    client.put_object(Bucket=bucket, Key=key, Body=b"0ne")
    with pytest.raises(IntegrityError, match=r"manifest\.json: found other bytes"):
        fetch_batch(revision, tmp_path / "out", settings=services)
    client.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(IntegrityError, match=r"manifest\.json: found nothing"):
        fetch_batch(revision, tmp_path / "out", settings=services)
    assert not (tmp_path / "out" / "lab").exists()


def test_a_store_that_is_away_is_transient_and_nothing_is_committed(services: Settings, tmp_path: Path) -> None:
    folder = make_batch(tmp_path / "d" / "b1", "one")
    away = services.model_copy(update={"s3_endpoint": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(TransientError):
        commit_batch(folder, "lab", "b1", settings=away, run_id="r")
    assert list_batches("lab", settings=services) == []


def test_a_store_that_fails_half_way_leaves_no_commit(
    services: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_batch(tmp_path / "d" / "b1", "one")
    monkeypatch.setattr("coda.storage.data_registry.ObjectStore.exists", lambda *_: False)  # the first look succeeds
    away = services.model_copy(update={"s3_endpoint": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(TransientError, match="does not answer"):
        commit_batch(folder, "lab", "b1", settings=away, run_id="r")
    assert list_batches("lab", settings=services) == []
    assert all(path.stat().st_mode & stat.S_IWUSR for path in folder.rglob("*"))


def test_what_is_not_there_is_named(services: Settings, tmp_path: Path) -> None:
    nowhere = services.model_copy(update={"data_registry": str(tmp_path / "nowhere.git")})
    with pytest.raises(ConfigError, match=r"nowhere\.git"):
        list_batches("lab", settings=nowhere)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty"):
        commit_batch(tmp_path / "empty", "lab", "b", settings=services, run_id="r")
