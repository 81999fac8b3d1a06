"""Notifications of several stores, test events, and things that are no notifications."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coda.trigger.events import Notice, fingerprint, read_message


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
