"""The trigger told of a batch by a real S3 server's own push notification (Ceph RADOS gateway), without polling."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from servers import free_port

from coda.contracts import BatchManifest, ModelRef, ReleaseRecord
from coda.registry.releases import ReleaseLog
from coda.settings import Settings
from coda.storage.objects import ObjectStore
from coda.trigger.ledger import Ledger

pytestmark = pytest.mark.services

TOKEN = "a-token-that-only-the-topic-knows"
HEX = "ab" * 32
FILES = ("map.csv", "load.csv", "r01 c01+a.tif")


def manifest():
    files = [{"path": name, "size_bytes": 3, "sha256": HEX} for name in FILES]
    plate = {"plate": "p1", "plate_map": FILES[0], "load_data": FILES[1], "sites_per_well": 1, "files": files}
    raw = {
        "source": "lab_b", "batch": "b1", "created_at": "2026-01-01T00:00:00Z", "channels": ["DNA"], "plate_wells": 96,
        "instrument": {"name": "scope", "modality": "widefield", "pixel_size_um": 0.5}, "plates": [plate],
    }  # fmt: skip
    return BatchManifest.parse(json.dumps(raw), "test")


def deliver_files(landing):
    for name in FILES:
        landing.put(f"lab_b/b1/{name}", b"abc")


def deliver(landing):
    deliver_files(landing)
    document = manifest()
    landing.put("lab_b/b1/manifest.json", document.to_json().encode())
    return document


def train(settings):
    """Make the default release that adaptation starts from."""
    release = ReleaseRecord(
        release_id="r1", source="lab_a", created_at=datetime(2026, 1, 1, tzinfo=UTC), method="source",
        extractor=ModelRef(name="e", version=1, digest=HEX), head=ModelRef(name="h", version=1, digest=HEX),
        alignment="none", run_id="train", params_digest=HEX, gate_sentence="s", approver="gate",
    )  # fmt: skip
    ReleaseLog(settings).append(release, "default", action="promote", by="t", reason="r", after=0)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Fresh buckets on the real server, and settings that name them."""
    endpoint = os.environ.get("CODA_TEST_S3_ENDPOINT")
    if endpoint is None:
        pytest.skip("no real S3 server is running: make test-services starts one")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", os.environ["CODA_TEST_S3_ACCESS_KEY"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", os.environ["CODA_TEST_S3_SECRET_KEY"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "default")
    name = uuid4().hex[:12]
    settings = Settings(
        landing=f"s3://landing-{name}/in", platform=f"s3://platform-{name}", s3_endpoint=endpoint,
        mlflow_uri="sqlite:///unused", data_registry=str(tmp_path), data_remote=f"s3://platform-{name}/dvc",
        checkpoints=str(tmp_path),
    )  # fmt: skip
    landing, platform = ObjectStore(settings.landing, endpoint), ObjectStore(settings.platform, endpoint)
    landing.ensure_bucket()
    platform.ensure_bucket()
    train(settings)
    return SimpleNamespace(settings=settings, landing=landing, platform=platform, endpoint=endpoint, tmp_path=tmp_path)


def notify(place, push_endpoint, opaque=""):
    """Have the landing bucket push its notifications to an address."""
    options = {
        "endpoint_url": place.endpoint,
        "region_name": "default",
        "config": Config(signature_version="v4", retries={"max_attempts": 1}),
    }
    attributes = {"push-endpoint": push_endpoint, "verify-ssl": "false", **({"OpaqueData": opaque} if opaque else {})}
    session = boto3.session.Session()  # boto3's default one keeps the keys of whatever test made it
    topic = session.client("sns", **options).create_topic(Name=f"t-{uuid4().hex[:8]}", Attributes=attributes)[
        "TopicArn"
    ]
    configuration = {"Id": "coda", "TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}
    options["config"] = Config(signature_version="s3v4", s3={"addressing_style": "path"})
    session.client("s3", **options).put_bucket_notification_configuration(
        Bucket=place.landing.bucket, NotificationConfiguration={"TopicConfigurations": [configuration]}
    )


@pytest.fixture
def service(place, root):
    """`coda trigger serve` with the webhook alone, as a process; its runs go to a Kubeflow that is not there."""
    port, pages = free_port(), free_port()
    log = place.tmp_path / "trigger.log"
    command = [
        sys.executable, "-m", "coda", "trigger", "serve", "--no-poll", "--no-queue", "--webhook", "--runner", "kfp",
        "--webhook-port", str(port), "--port", str(pages), "--log-format", "json",
        "--params", str(root / "params.yaml"), "--overlay", str(root / "params" / "demo.yaml"),
    ]  # fmt: skip
    environment = {
        **os.environ, **place.settings.environment, "CODA_WEBHOOK_TOKEN": TOKEN, "CODA_KFP_ENDPOINT": "http://127.0.0.1:9",
        "CODA_KFP_NAMESPACE": "lab",
    }  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{pages}/healthz"), log)
        yield SimpleNamespace(
            push=f"http://127.0.0.1:{port}/events", log=log, process=process, pages=f"http://127.0.0.1:{pages}"
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  on loopback
            return answer.status == 200
    except OSError:
        return False


def wait_for(true, log, seconds=90):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def test_delivered_batch_is_pushed_recorded_and_claimed_without_polling(place, service):
    notify(place, service.push, TOKEN)
    digest = deliver(place.landing).digest()
    ledger = Ledger(place.platform)
    wait_for(lambda: [state for state in ledger.newest() if state.sequence > 1], service.log)
    (state,) = ledger.newest()
    assert (state.source, state.batch, state.manifest_digest) == ("lab_b", "b1", digest)
    assert ledger.claim_of(state.version) is not None
    (entry,) = ledger.entries()
    assert [item.state for item in entry.states[:2]] == ["landed", "claimed"]
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert any(line.get("batch") == "b1" and line["message"].endswith("is claimed.") for line in lines)
    assert TOKEN not in service.log.read_text()


def test_manifest_uploaded_in_parts_is_pushed_too(place, service):
    notify(place, service.push, TOKEN)
    deliver_files(place.landing)
    s3, bucket, key = place.landing.client, place.landing.bucket, place.landing.path("lab_b/b1/manifest.json")
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    body = manifest().to_json().encode()
    part = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=body)
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload=parts)
    ledger = Ledger(place.platform)
    wait_for(lambda: list(ledger.newest()), service.log)
    assert len(list(ledger.newest())) == 1


def test_topic_with_another_token_starts_nothing(place, service):
    notify(place, service.push, "some-other-token")
    deliver(place.landing)
    wait_for(lambda: 'outcome="unauthorised"} ' in page(service, "/metrics"), service.log)
    assert list(Ledger(place.platform).newest()) == []


def page(service, path):
    with urllib.request.urlopen(service.pages + path, timeout=5) as answer:  # noqa: S310  on loopback
        return answer.read().decode()
