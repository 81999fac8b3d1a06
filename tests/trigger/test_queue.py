"""S3 notifications through a real queue service on loopback: duplicates, poison, acknowledgement."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import boto3
import pytest
from conftest_trigger import Immediate, deliver, manifest_of, train

from coda.errors import ConfigError, TransientError
from coda.storage.objects import ObjectStore
from coda.trigger.queue import Queue
from coda.trigger.service import Pace, Trigger


@pytest.fixture
def place(moto_server, tmp_path):
    """Settings whose landing bucket notifies a queue."""
    settings = moto_server.settings(tmp_path)
    sqs = boto3.client("sqs", endpoint_url=moto_server.endpoint, region_name="us-east-1")
    url = sqs.create_queue(QueueName=f"q-{uuid4().hex[:8]}", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3 = boto3.client("s3", endpoint_url=moto_server.endpoint, region_name="us-east-1")
    bucket = settings.landing.removeprefix("s3://")
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]},
    )
    settings = settings.model_copy(update={"queue_url": url, "landing": f"s3://{bucket}/in"})

    class Place:
        def __init__(self):
            self.settings, self.sqs, self.s3, self.url, self.bucket = settings, sqs, s3, url, bucket
            self.landing = ObjectStore(settings.landing, moto_server.endpoint)
            self.platform = ObjectStore(settings.platform, moto_server.endpoint)

        def queue(self):
            return Queue(url, self.landing, self.platform)

        def waiting(self):
            answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
            return int(answer["Attributes"]["ApproximateNumberOfMessages"])

        def trigger(self, submitter, params, **more):
            return Trigger(settings, submitter, params=params, poll=False, pace=Pace(tick_s=0, backoff_s=0), **more)

    return Place()


def test_fifty_copies_of_one_event_in_parallel_are_one_run(place, demo_params):
    train(place.settings)
    deliver(place.landing)
    (original,) = [
        message["Body"]
        for message in place.sqs.receive_message(QueueUrl=place.url, MaxNumberOfMessages=10)["Messages"]
        if "manifest.json" in message["Body"]
    ]
    for _ in range(50):
        place.sqs.send_message(QueueUrl=place.url, MessageBody=original)
    cluster = Immediate(place.platform)
    triggers = [place.trigger(cluster, demo_params) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Trigger.look, triggers))
    for trigger in triggers:
        trigger.run_once()
    assert len(cluster.started) == 1
    assert place.waiting() == 0
    assert len([item for item in place.platform.list("ledger/") if item.key.endswith("claim.json")]) == 1


def test_multipart_manifest_told_twice_is_one_run(place, demo_params):
    train(place.settings)
    deliver(place.landing, manifest=False)
    key = "in/lab_b/b1/manifest.json"
    upload = place.s3.create_multipart_upload(Bucket=place.bucket, Key=key)["UploadId"]
    body = manifest_of("lab_b", "b1").to_json().encode()
    part = place.s3.upload_part(Bucket=place.bucket, Key=key, UploadId=upload, PartNumber=1, Body=body)
    place.s3.complete_multipart_upload(
        Bucket=place.bucket, Key=key, UploadId=upload,
        MultipartUpload={"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]},
    )  # fmt: skip
    cluster = Immediate(place.platform)
    handled = place.trigger(cluster, demo_params).run_once()
    assert [item.state for item in handled] == ["released"]
    assert len(cluster.started) == 1


def test_test_events_other_files_and_other_places_are_acknowledged(place):
    place.s3.put_object(Bucket=place.bucket, Key="elsewhere/lab/b/manifest.json", Body=b"x")
    place.s3.put_object(Bucket=place.bucket, Key="in/lab/b/plate.tif", Body=b"x")
    seen = []
    assert place.queue().drain(lambda key: not seen.append(key)) == 3
    assert seen == []
    assert place.waiting() == 0


def test_key_with_spaces_and_umlauts_arrives_as_it_was(place):
    place.landing.put("lab 1/ü+%2F/manifest.json", b"x")
    seen = []
    place.queue().drain(lambda key: not seen.append(key))
    assert seen == ["lab 1/ü+%2F/manifest.json"]


def test_message_is_kept_until_its_record_is_durable(place):
    place.landing.put("lab/b/manifest.json", b"x")

    def away(key):
        raise TransientError("The ledger is away.")

    with pytest.raises(TransientError):
        place.queue().drain(away)
    assert place.waiting() >= 1
    assert place.queue().drain(lambda key: False, rounds=1) <= 1
    seen = []
    place.queue().drain(lambda key: not seen.append(key))
    assert "lab/b/manifest.json" in seen
    assert place.waiting() == 0


def test_message_nobody_can_read_is_kept_for_a_person_and_leaves_the_queue(place):
    for body in ("gibberish", "gibberish", "[]"):
        place.sqs.send_message(QueueUrl=place.url, MessageBody=body)
    place.queue().drain(lambda key: True)
    assert place.waiting() == 0
    kept = [place.platform.get(item.key) for item in place.platform.list("events/unreadable/")]
    assert len(kept) == 2
    assert any(b"gibberish" in body and b"not JSON" in body for body in kept)


def test_incomplete_batch_told_of_by_the_queue_alone_is_not_lost(place, demo_params):
    train(place.settings)
    deliver(place.landing, files=False)
    trigger = place.trigger(Immediate(place.platform), demo_params)
    assert trigger.run_once() == []
    assert place.waiting() == 0
    deliver(place.landing, manifest=False)
    assert [item.state for item in trigger.run_once()] == ["released"]


def test_queue_that_is_not_there_is_for_the_operator_and_one_that_is_away_is_transient(place, moto_server):
    missing = Queue(f"{moto_server.endpoint}/123456789012/none", place.landing, place.platform)
    with pytest.raises(ConfigError, match="cannot be read"):
        missing.drain(lambda key: True)
    away = Queue("http://127.0.0.1:9/123456789012/q", place.landing, place.platform)
    with pytest.raises(TransientError):
        away.drain(lambda key: True)
