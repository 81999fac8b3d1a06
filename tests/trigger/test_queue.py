"""S3 notifications through a real queue service on loopback: duplicates, poison, acknowledgement."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from conftest_trigger import Immediate, deliver, manifest_of, train

from coda.errors import CodaError, ConfigError, TransientError
from coda.storage.objects import ObjectStore
from coda.trigger import queue as queue_module
from coda.trigger.queue import Queue
from coda.trigger.service import Pace, Trigger
from coda.trigger.visibility import KeptInvisible


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
            return Trigger(
                settings, submitter, params=params, events=("queue",), pace=Pace(tick_s=0, backoff_s=0), **more
            )

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
    with pytest.raises(ConfigError, match="CODA_QUEUE_URL"):
        missing.drain(lambda key: True)
    away = Queue("http://127.0.0.1:9/123456789012/q", place.landing, place.platform)
    with pytest.raises(TransientError):
        away.drain(lambda key: True)


def test_message_that_breaks_us_leaves_the_others_alone_and_goes_where_the_queue_says(place):
    dead = place.sqs.create_queue(QueueName=f"dead-{uuid4().hex[:8]}")["QueueUrl"]
    arn = place.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "3"})
    place.sqs.set_queue_attributes(QueueUrl=place.url, Attributes={"RedrivePolicy": policy})
    for batch in ("b1", "b2"):
        place.landing.put(f"lab/{batch}/manifest.json", b"x")
    seen = []

    def take(key):
        if "b1" in key:
            raise CodaError("A defect.")
        seen.append(key)
        return True

    queue = place.queue()
    for _ in range(6):  # before it asks for more, whoever drains looks whether a service is to blame
        queue.drain(take, rounds=20)
    assert set(seen) == {"lab/b2/manifest.json"}
    assert place.waiting() == 0
    (kept,) = place.sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10)["Messages"]
    assert "b1" in kept["Body"]


def test_outage_of_the_store_uses_up_no_receives(place, demo_params, monkeypatch):
    """Else the queue would set messages aside as dead letters that nothing is wrong with."""
    train(place.settings)
    deliver(place.landing)
    trigger = place.trigger(Immediate(place.platform), demo_params)
    received = []
    receive = Queue._receive
    monkeypatch.setattr(Queue, "_receive", lambda self, wait_s: received.append(1) or receive(self, wait_s))

    def away(*arguments):
        raise TransientError("The object store is away.")

    with monkeypatch.context() as patch:
        patch.setattr(trigger.arrivals, "take", away)
        with pytest.raises(TransientError):
            trigger.look()
        patch.setattr(trigger.ledger.store, "exists", away)
        for _ in range(5):
            with pytest.raises(TransientError):
                trigger.look()
        assert len(received) == 1
    assert [item.state for item in trigger.run_once()] == ["released"]


def test_messages_stay_hidden_as_long_as_they_are_worked_on(place, monkeypatch):
    place.sqs.set_queue_attributes(QueueUrl=place.url, Attributes={"VisibilityTimeout": "1"})
    place.landing.put("lab/b1/manifest.json", b"x")
    queue = place.queue()
    client, answers, extended = queue._connected(), [], threading.Event()
    extend = client.change_message_visibility_batch

    def record(**options):
        answers.append((len(options["Entries"]), extend(**options)))
        if len(answers) >= 3:
            extended.set()

    monkeypatch.setattr(client, "change_message_visibility_batch", record)
    seen = []
    # one message takes far longer than the queue hides it by itself: until it was extended three times
    queue.drain(lambda key: extended.wait(60) and not seen.append(key), wait_s=2)
    assert seen == ["lab/b1/manifest.json"]
    assert len(answers) >= 3
    # what was worked on was still ours each time
    assert all(len(answer["Successful"]) == count > 0 for count, answer in answers[:3])
    threads = [thread.name for thread in threading.enumerate()]
    assert "visibility" not in threads


def test_queue_that_does_not_answer_an_extension_is_no_failure(place):
    asked = threading.Event()

    class Away:
        def change_message_visibility_batch(self, **options):
            asked.set()
            raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, "ChangeMessageVisibilityBatch")

    with KeptInvisible(Away(), place.url, 1, [{"ReceiptHandle": "r"}]) as kept:
        assert asked.wait(60)
        kept.done("r")


def test_queue_that_hides_its_settings_is_read_all_the_same(place, monkeypatch):
    place.landing.put("lab/b/manifest.json", b"x")
    queue = place.queue()
    client = queue._connected()

    def denied(**options):
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetQueueAttributes")

    monkeypatch.setattr(client, "get_queue_attributes", denied)
    seen = []
    queue.drain(lambda key: not seen.append(key))
    assert seen == ["lab/b/manifest.json"]
    assert queue._visibility_s() == queue_module.DEFAULT_HIDDEN_S


def test_messages_that_would_break_a_reader_are_kept_for_a_person(place):
    for body in ("[" * 50_000, '{"Records": ' + "9" * 5000 + "}"):
        place.sqs.send_message(QueueUrl=place.url, MessageBody=body)
    place.queue().drain(lambda key: True)
    assert place.waiting() == 0
    assert len(list(place.platform.list("events/unreadable/"))) == 2


def dead_letters(place, receives="3"):
    dead = place.sqs.create_queue(QueueName=f"dead-{uuid4().hex[:8]}")["QueueUrl"]
    arn = place.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": receives})
    place.sqs.set_queue_attributes(QueueUrl=place.url, Attributes={"RedrivePolicy": policy})
    return dead


def test_unreadable_message_is_kept_counted_told_and_goes_to_the_dead_letters(place, demo_params, caplog):
    train(place.settings)
    dead = dead_letters(place)
    place.sqs.send_message(QueueUrl=place.url, MessageBody='{"hello": 1}')
    trigger = place.trigger(Immediate(place.platform), demo_params)
    for _ in range(3):
        trigger.look()
    (kept,) = place.sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10)["Messages"]
    assert kept["Body"] == '{"hello": 1}'
    assert len(list(place.platform.list("events/unreadable/"))) == 1
    read = trigger.metrics.registry.get_sample_value
    assert read("coda_trigger_queue_messages_total", {"outcome": "unreadable"}) >= 1
    assert caplog.text.count("cannot be read (no Records)") == 1


def test_event_of_eventbridge_starts_its_batch(place, demo_params):
    train(place.settings)
    deliver(place.landing)
    place.sqs.purge_queue(QueueUrl=place.url)
    event = {
        "detail-type": "Object Created", "source": "aws.s3",
        "detail": {"bucket": {"name": place.bucket}, "object": {"key": "in/lab_b/b1/manifest.json"}},
    }  # fmt: skip
    place.sqs.send_message(QueueUrl=place.url, MessageBody=json.dumps(event))
    assert [item.state for item in place.trigger(Immediate(place.platform), demo_params).run_once()] == ["released"]


@pytest.mark.parametrize("error", [ConfigError("ExpiredToken"), CodaError("found 400 (Bad Request)")])
def test_restarts_with_credentials_that_expired_move_nothing_to_the_dead_letters(
    place, demo_params, monkeypatch, error
):
    train(place.settings)
    dead = dead_letters(place)
    deliver(place.landing)

    def expired(*arguments, **more):
        raise error

    with monkeypatch.context() as patch:
        for name in ("exists", "size", "get", "find"):
            patch.setattr(ObjectStore, name, expired)
        for _ in range(5):
            with pytest.raises(type(error)):
                place.trigger(Immediate(place.platform), demo_params).look()
    assert "Messages" not in place.sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10)
    assert [item.state for item in place.trigger(Immediate(place.platform), demo_params).run_once()] == ["released"]
