"""Object storage, ledger, release log and data registry against a real S3 server (Ceph RADOS gateway)."""

import os
import threading
from pathlib import Path
from uuid import uuid4

import pytest

from coda.errors import TransientError
from coda.settings import Settings
from coda.storage.data_registry import commit_batch, create_registry, fetch_batch, list_batches
from coda.storage.objects import ObjectStore
from coda.trigger.batch_versions import BatchVersion
from coda.trigger.ledger import Ledger

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def endpoint():
    address = os.environ.get("CODA_TEST_S3_ENDPOINT")
    if address is None:
        pytest.skip("no real S3 server is running: make test-services starts one")
    return address


@pytest.fixture
def store(endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", os.environ["CODA_TEST_S3_ACCESS_KEY"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", os.environ["CODA_TEST_S3_SECRET_KEY"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "default")
    # what DVC's client reads; settings.environment sets it for every step
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    found = ObjectStore(f"s3://test-{uuid4().hex[:12]}/prefix", endpoint)
    found.ensure_bucket()
    return found


def test_objects_come_back_as_they_were_sent(store, tmp_path):
    bodies = {"a/plain": b"1", "a/ü +%2F.bin": b"2", "large": os.urandom(9 * 1024 * 1024)}
    for key, body in bodies.items():
        store.put(key, body)
    assert {item.key for item in store.list()} == set(bodies)
    assert {item.key for item in store.list("a/")} == {"a/plain", "a/ü +%2F.bin"}
    for key, body in bodies.items():
        assert store.get(key) == body
        assert store.size(key) == len(body)
    path = store.download("large", tmp_path / "large")
    store.upload(path, "again")
    assert store.get("again") == bodies["large"]
    store.delete("again")
    assert not store.exists("again")
    assert store.size("never") is None


def race(count, attempt):
    winners = []
    barrier = threading.Barrier(count)

    def run(number):
        barrier.wait()
        if attempt(number):
            winners.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return winners


def test_forty_conditional_writes_have_one_winner(store):
    winners = race(40, lambda number: store.put_if_absent("claim.json", str(number).encode()))
    assert len(winners) == 1
    assert store.get("claim.json") == str(winners[0]).encode()


def test_fifty_copies_of_an_event_make_one_claim(store):
    version = BatchVersion("lab_b", "b1", "a" * 64, "lab_b/b1/manifest.json")
    winners = race(50, lambda _: Ledger(store).claim(version))
    assert len(winners) == 1


def test_a_wrong_key_is_refused(store, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    stranger = ObjectStore(store.uri, os.environ["CODA_TEST_S3_ENDPOINT"])
    with pytest.raises(Exception, match=r"(?i)credential|denied|signature|key"):
        stranger.get("anything")


def test_a_server_that_is_away_is_a_transient_error(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(TransientError):
        ObjectStore("s3://bucket", "http://127.0.0.1:9", attempts=1, timeout_s=2).get("key")


def test_a_batch_is_versioned_and_comes_back_by_revision(store, endpoint, tmp_path):
    settings = Settings(
        landing=store.uri,
        platform=store.uri,
        s3_endpoint=endpoint,
        mlflow_uri="sqlite:///unused",
        data_registry=str(tmp_path / "registry.git"),
        data_remote=f"{store.uri}/dvc",
        checkpoints=str(tmp_path),
    )
    create_registry(Path(settings.data_registry), settings.data_remote)
    batch = tmp_path / "dataset" / "lab_b" / "b1"
    batch.mkdir(parents=True)
    (batch / "index.parquet").write_bytes(os.urandom(1000))
    (batch / "p1.ome.zarr.zip").write_bytes(os.urandom(100_000))
    revision = commit_batch(batch, "lab_b", "b1", settings=settings, run_id="run-1")
    assert commit_batch(batch, "lab_b", "b1", settings=settings, run_id="run-1") == revision
    assert [item.batch for item in list_batches("lab_b", settings=settings)] == ["b1"]
    fetched = fetch_batch(revision, tmp_path / "again", settings=settings)
    for path in batch.iterdir():
        assert next(fetched.rglob(path.name)).read_bytes() == path.read_bytes()
