"""Versions as other people's tools see them: plate stores by revision, many writers, and nothing half-committed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from servers import Moto

from coda.contracts import DataRevision
from coda.plates.store import PlateStoreWriter, StoredField, encode
from coda.plates.store_reading import read_arrays
from coda.settings import Settings
from coda.storage.clone import cloned, object_key
from coda.storage.data_garbage import stray_objects
from coda.storage.data_registry import commit_batch, create_registry, fetch_batch, list_batches
from coda.storage.objects import store_for

WRITERS = 6
POINTER = "outs:\n- md5: {digest}.dir\n  size: 1\n  nfiles: 1\n  hash: md5\n  path: {name}\n"


@pytest.fixture(scope="module")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("registry") / "data-registry.git"
    create_registry(path, "s3://replaced-by-the-settings/dvc")
    return path


@pytest.fixture
def services(moto_server: Moto, tmp_path: Path, empty_registry: Path) -> Settings:
    """An empty registry; its committed configuration names the remote, as `create_registry` would have written it."""
    settings = moto_server.settings(tmp_path)
    shutil.copytree(empty_registry, settings.data_registry)
    clone = tmp_path / "configuring"
    git(tmp_path, "clone", "-q", settings.data_registry, str(clone))
    config = clone / ".dvc" / "config"
    config.write_text(config.read_text().replace("s3://replaced-by-the-settings/dvc", settings.data_remote))
    git(clone, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "Name the remote")
    git(clone, "push", "-q")
    shutil.rmtree(clone)
    return settings


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def plate(path: Path, seed: int) -> Path:
    """Write a real plate store of two fields."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with PlateStoreWriter(path, path.name.split(".")[0], 96, ("DNA", "ER"), (1.2, 1.2), {"seed": seed}) as writer:
        for column in range(2):
            pixels = rng.integers(0, 255, (2, 40, 48)).astype(np.uint8)
            writer.add(StoredField((0, column), 1, pixels.shape, encode(pixels)))
    return path


def batch(folder: Path, seed: int) -> Path:
    for number in (1, 2):
        plate(folder / f"p{number}.ome.zarr.zip", 10 * seed + number)
    (folder / "manifest.json").write_text(json.dumps({"seed": seed}))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


API = """
import hashlib, json, sys
import dvc.api
repo, path, revision = sys.argv[1:]
with dvc.api.open(path, repo=repo, rev=revision, mode="rb") as file:
    data = file.read()
print(json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "url": dvc.api.get_url(path, repo=repo, rev=revision)}))
"""


def test_dvc_get_and_dvc_api_give_the_plates_of_a_revision_after_later_ones(services: Settings, tmp_path: Path) -> None:
    folder = batch(tmp_path / "d" / "b1", 1)
    first_content = contents(folder)
    first = commit_batch(folder, "lab", "b1", settings=services, run_id="r1")
    plate(folder / "p1.ome.zarr.zip", 99)  # one plate is made anew, the other stays
    second = commit_batch(folder, "lab", "b1", settings=services, run_id="r2")
    environment = {
        **os.environ, "AWS_ENDPOINT_URL": services.s3_endpoint, "AWS_ENDPOINT_URL_S3": services.s3_endpoint,
        "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site"), "HOME": str(tmp_path),
    }  # fmt: skip
    got = tmp_path / "got"
    command = [sys.executable, "-m", "dvc", "get", "-q", services.data_registry, "data/lab/b1", "--rev"]
    subprocess.run([*command, first.revision, "-o", str(got)], env=environment, cwd=tmp_path, check=True)
    assert contents(got) == first_content
    for store in ("p1", "p2"):
        next(read_arrays(got / f"{store}.ome.zarr.zip", ["A/1/1/0"], [(2, 40, 48)]))
    asked = [sys.executable, "-c", API, services.data_registry, "data/lab/b1/p1.ome.zarr.zip", second.revision]
    answer = json.loads(
        subprocess.run(asked, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    )
    assert answer["sha256"] == hashlib.sha256((folder / "p1.ome.zarr.zip").read_bytes()).hexdigest()
    assert answer["url"].startswith(services.data_remote)
    # the plate that stayed is stored once: two plates, two versions, three stores
    store = store_for(services.data_remote, services)
    listings = [json.loads(store.get(object_key(item.digest))) for item in (first, second)]
    stores = {entry["md5"] for listing in listings for entry in listing if entry["relpath"].endswith(".zip")}
    assert len(stores) == 3
    assert contents(fetch_batch(first, tmp_path / "old", settings=services)) == first_content


def write(settings: Settings, path: str, text: str) -> None:
    with cloned(settings.data_registry, settings.data_remote, settings.s3_endpoint) as clone:
        clone.publish({path: text}, f"Add {path}\n")


def test_six_writers_at_once_lose_nothing_and_keep_one_straight_history(services: Settings) -> None:
    """The race for the branch alone, without the seconds that DVC takes: clone, commit, push, be late, begin again."""
    jobs = []
    for number in range(WRITERS):
        for version in range(2):
            digest = hashlib.md5(f"{number}-{version}".encode(), usedforsecurity=False).hexdigest()
            jobs.append((f"data/lab/b{number}", POINTER.format(digest=digest, name=f"b{number}")))
    same = [("data/lab/same", POINTER.format(digest=f"{number:032x}", name="same")) for number in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda job: write(services, *job), [*jobs, *same]))
    repository = Path(services.data_registry)
    log = git(repository, "log", "--format=%H %P", "main").splitlines()
    assert all(len(line.split()) <= 2 for line in log), "no merge: each commit has one parent"
    for path, text in [*jobs, *same]:
        versions = git(repository, "log", "--format=%H", "main", "--", f"{path}.dvc").split()
        assert text in {git(repository, "show", f"{commit}:{path}.dvc") for commit in versions}, path
    names = {item.batch for item in list_batches("lab", settings=services)}
    assert names == {*(f"b{number}" for number in range(WRITERS)), "same"}


DYING = """
import os, sys
from pathlib import Path
from coda.settings import read_settings
from coda.storage.clone import Clone
from coda.storage.data_registry import commit_batch
Clone.publish = lambda *_: os._exit(9)  # after the push of the bytes, before the commit that names them
commit_batch(Path(sys.argv[1]), "lab", "b1", settings=read_settings(), run_id="r")
"""


def test_a_writer_that_dies_before_its_commit_leaves_no_version_and_only_collectable_bytes(
    services: Settings, tmp_path: Path
) -> None:
    folder = batch(tmp_path / "d" / "b1", 5)
    environment = {**os.environ, **services.environment, "TMPDIR": str(tmp_path)}  # what it leaves behind, too
    done = subprocess.run([sys.executable, "-c", DYING, str(folder)], env=environment, check=False)
    assert done.returncode == 9
    assert list_batches("lab", settings=services) == []
    assert git(Path(services.data_registry), "rev-list", "--count", "main").strip() == "2"
    later = datetime.now(UTC) + timedelta(days=1)
    stray = {item.key for item in stray_objects([], settings=services, before=later)}
    assert len(stray) == 4  # the list of files, two plates, the manifest
    assert stray_objects([], settings=services, before=datetime.now(UTC) - timedelta(hours=1)) == [], "still young"
    named = commit_batch(folder, "lab", "b1", settings=services, run_id="again")
    assert stray_objects([], settings=services, before=later) == []
    assert not _listed(services, named) - stray


def _listed(settings: Settings, revision: DataRevision) -> set[str]:
    listing = json.loads(store_for(settings.data_remote, settings).get(object_key(revision.digest)))
    return {object_key(revision.digest), *(object_key(entry["md5"]) for entry in listing)}
