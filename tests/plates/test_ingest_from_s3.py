"""Ingest through the S3 API (moto's server on loopback)."""

from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
from batches import SETTINGS, deliver
from servers import free_port

from coda.errors import ContractError, TransientError
from coda.steps.ingest import ObjectFiles, ingest
from coda.storage import ObjectStore


def upload(store, folder, prefix):
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            store.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def test_a_batch_in_a_bucket_gives_the_same_folder(moto_server, dataset, delivered, small_params, tmp_path):
    store = moto_server.bucket()
    upload(store, delivered.folder, "in/lab_a/b1")
    settings = SETTINGS.model_copy(update={"s3_endpoint": moto_server.endpoint})
    ingest([f"{store.uri}/in/lab_a/b1/manifest.json"], tmp_path, params=small_params(), settings=settings)
    for path in (dataset / "lab_a" / "b1").rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(dataset)).read_bytes() == path.read_bytes(), path


def test_an_object_that_is_not_there_sets_its_field_aside(moto_server, small_params, tmp_path):
    delivery = deliver(tmp_path / "in", sites=3)
    store = moto_server.bucket()
    upload(store, delivery.folder, "b")
    store.delete(f"b/{delivery.images()[0]}")
    settings = SETTINGS.model_copy(update={"s3_endpoint": moto_server.endpoint})
    uri = f"{store.uri}/b/manifest.json"
    (report,) = ingest([uri], tmp_path / "out", params=small_params(), settings=settings)
    assert report.fields_accepted == 11
    assert "not delivered" in report.quarantined[0].reason
    with pytest.raises(ContractError, match="found nothing"):
        ingest([f"{store.uri}/c/manifest.json"], tmp_path / "out", params=small_params(), settings=settings)


def test_files_of_a_bucket_can_be_sent_to_a_worker_process(moto_server):
    store = moto_server.bucket()
    store.put("b/x", b"12345")
    copy = ForkingPickler.loads(ForkingPickler.dumps(ObjectFiles(ObjectStore(f"{store.uri}/b", store.endpoint))))
    assert (copy.read("x", at_most=5), copy.size("x"), copy.size("y")) == (b"12345", 5, None)
    with pytest.raises(FileNotFoundError):
        copy.read("y", at_most=5)


def test_a_storage_that_does_not_answer_is_transient(moto_server, small_params, tmp_path, monkeypatch):
    init = ObjectStore.__init__
    monkeypatch.setattr(
        ObjectStore, "__init__", lambda self, uri, endpoint=None: init(self, uri, endpoint, attempts=1, timeout_s=1)
    )
    settings = SETTINGS.model_copy(update={"s3_endpoint": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(TransientError):
        ingest(["s3://none/b/manifest.json"], tmp_path, params=small_params(), settings=settings)
    assert list(tmp_path.iterdir()) == []
