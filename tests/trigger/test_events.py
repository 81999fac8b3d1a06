"""Notifications of several stores, test events, and things that are no notifications."""

import base64
import json
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coda.trigger.events import ENVELOPES, Notice, fingerprint, manifest_keys, read_message


def event(key, name="ObjectCreated:Put", source="aws:s3"):
    record = {"eventName": name, "eventSource": source, "s3": {"bucket": {"name": "b"}, "object": {"key": key}}}
    return json.dumps({"Records": [record]})


def test_keys_of_s3_are_url_decoded_and_those_of_ceph_are_taken_as_they_are():
    assert read_message(event("lab+1%2F%C3%BC/manifest.json")).notices == (Notice("b", "lab 1/ü/manifest.json"),)
    assert read_message(event("lab+1/%2F", source="ceph:s3")).notices == (Notice("b", "lab+1/%2F"),)
    assert read_message(event("a%20b", source="minio:s3")).notices == (Notice("b", "a b"),)


@pytest.mark.parametrize(
    "name", ["ObjectCreated:Put", "s3:ObjectCreated:CompleteMultipartUpload", "ObjectCreated:Copy"]
)
def test_every_way_of_creating_counts(name):
    assert read_message(event("k", name)).notices == (Notice("b", "k"),)


def test_other_events_and_test_events_are_understood_and_say_nothing():
    assert read_message(event("k", "ObjectRemoved:Delete")) == read_message('{"Event": "s3:TestEvent"}')
    assert read_message('{"Event": "s3:TestEvent"}').notices == ()
    assert read_message('{"Event": "s3:TestEvent"}').problem == ""


def test_message_wrapped_by_sns_is_unwrapped():
    assert read_message(json.dumps({"Type": "Notification", "Message": event("k")})).notices == (Notice("b", "k"),)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        "[]",
        "{}",
        '{"Records": {}}',
        '{"Records": [3]}',
        '{"Records": [{"eventName": "ObjectCreated:Put"}]}',
        '{"Type": "Notification", "Message": 3}',
        '{"Type": "Notification", "Message": "x"}',
    ],
)
def test_anything_else_has_a_problem(body):
    message = read_message(body)
    assert message.problem
    assert message.notices == ()


@given(st.text())
def test_no_text_breaks_it(text):
    assert read_message(text).notices == ()
    assert fingerprint(text) == fingerprint(text)


RECORDS = json.loads(event("k", source="ceph:s3"))
FOUND = (Notice("b", "k"),)


def seaweedfs(key="/buckets/b/lab/m.json", kind="create", **message):
    return json.dumps({"key": key, "event_type": kind, "message": message})


@pytest.mark.parametrize(
    "body",
    [
        RECORDS["Records"][0],
        {"specversion": "1.0", "type": "t", "source": "s", "id": "1", "data": RECORDS},
        {"specversion": "1.0", "type": "t", "source": "s", "id": "1", "data": json.dumps(RECORDS)},
        {"specversion": "1.0", "id": "1", "data_base64": base64.b64encode(json.dumps(RECORDS).encode()).decode()},
        {"specversion": "1.0", "id": "1", "data": RECORDS["Records"][0]},
        {"context": {"specversion": "1.0"}, "data": {"notification": RECORDS["Records"]}},
        {"context": {"specversion": "1.0"}, "data": {"header": {}, "body": RECORDS}},
        {"notification": RECORDS["Records"]},
        {"body": RECORDS},
        {"body": json.dumps({"Type": "Notification", "Message": json.dumps(RECORDS)})},
        {"EventName": "s3:ObjectCreated:Put", "Key": "b/k", **RECORDS},
    ],
    ids=["record", "structured", "text", "base64", "one", "argo-minio", "argo-webhook", "notification", "body", "sqs",
         "minio"],
)  # fmt: skip
def test_same_record_is_found_in_every_envelope(body):
    assert read_message(json.dumps(body)).notices == FOUND
    assert read_message(json.dumps(body).encode()).notices == FOUND


def test_envelopes_are_opened_up_to_a_limit():
    body = RECORDS
    for _ in range(ENVELOPES):
        body = {"body": body}
    assert read_message(json.dumps(body)).notices == FOUND
    message = read_message(json.dumps({"body": body}))
    assert message.notices == ()
    assert "envelopes" in message.problem


@pytest.mark.parametrize(
    ("body", "notices"),
    [
        (seaweedfs(new_entry={"name": "m.json"}), (Notice("b", "lab/m.json"),)),
        (seaweedfs(new_entry={"name": "m.json"}, new_parent_path="/buckets/b/lab"), (Notice("b", "lab/m.json"),)),
        (seaweedfs(newEntry={"name": "m.json"}, newParentPath="/buckets/b/lab"), (Notice("b", "lab/m.json"),)),
        (
            seaweedfs("/buckets/b/draft/x", "rename", old_entry={"name": "x"}, new_entry={"name": "m+%20.json"},
                      new_parent_path="/buckets/b/lab"),
            (Notice("b", "lab/m+%20.json"),),
        ),
        (seaweedfs(kind="delete", old_entry={"name": "m.json"}), ()),
        (seaweedfs(new_entry={"name": "lab", "is_directory": True}), ()),
        (seaweedfs("/etc/m.json", new_entry={"name": "m.json"}), ()),
        (seaweedfs("/buckets/b", new_entry={"name": "b"}), ()),
    ],
)  # fmt: skip
def test_seaweedfs_tells_of_entries_of_its_filer(body, notices):
    message = read_message(body)
    assert (message.notices, message.problem) == (notices, "")


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda children: st.one_of(
    st.lists(children),
    st.dictionaries(
        st.sampled_from(["Records", "s3", "object", "bucket", "key", "name", "eventName", "body", "data", "message",
                         "specversion", "event_type", "new_entry", "notification", "Type", "Message", "data_base64"]),
        children,
    ),
)))  # fmt: skip
def test_no_json_breaks_it(value):
    message = read_message(json.dumps(value))
    assert all(isinstance(notice.key, str) and isinstance(notice.bucket, str) for notice in message.notices)


@pytest.mark.parametrize("body", ["[" * 100_000, '{"a":' * 100_000, '{"Records": ' + "9" * 10_000 + "}"])
def test_depth_and_numbers_without_end_are_problems(body):
    assert read_message(body).problem


@given(st.text(st.sampled_from("a./\\%ü\ud800\n")))
def test_manifest_keys_stay_below_the_landing_prefix(text):
    landing = SimpleNamespace(bucket="b", prefix="in")
    message = SimpleNamespace(notices=[Notice("b", f"{text}/manifest.json"), Notice("b", f"in/{text}/manifest.json")])
    for key in manifest_keys(message, landing):
        assert not {"", ".", ".."} & set(key.split("/"))
        key.encode()


def eventbridge(kind="Object Created", **detail):
    """An event as Amazon documents it; keys are not encoded for a URL."""
    found = {
        "version": "0", "bucket": {"name": "b"}, "object": {"key": "lab+b/x y%2F/manifest.json", "size": 5},
        "request-id": "R", "requester": "1", "source-ip-address": "1.2.3.4", "reason": "PutObject", **detail,
    }  # fmt: skip
    return {
        "version": "0", "id": "i", "detail-type": kind, "source": "aws.s3", "account": "1", "region": "eu-west-1",
        "time": "2026-11-12T00:00:00Z", "resources": ["arn:aws:s3:::b"], "detail": found,
    }  # fmt: skip


def test_events_of_eventbridge_are_understood_alone_and_in_an_envelope():
    alone = json.dumps(eventbridge())
    wrapped = json.dumps({"Type": "Notification", "Message": alone})
    for body in (alone, wrapped, json.dumps({"specversion": "1.0", "data": eventbridge()})):
        assert read_message(body).notices == (Notice("b", "lab+b/x y%2F/manifest.json"),)


@pytest.mark.parametrize("kind", ["Object Deleted", "Object Tags Added", "Object Restore Completed"])
def test_other_events_of_eventbridge_say_nothing(kind):
    message = read_message(json.dumps(eventbridge(kind)))
    assert (message.notices, message.problem) == ((), "")


@pytest.mark.parametrize("detail", [{"bucket": None}, {"object": {}}, {"object": [1]}])
def test_event_of_eventbridge_without_an_object_is_unreadable_and_never_nothing(detail):
    assert read_message(json.dumps(eventbridge(**detail))).problem
    assert read_message(json.dumps({"detail-type": "Scheduled Event", "detail": {}})).problem
