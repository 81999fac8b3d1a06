"""Notifications of object stores and event buses: which objects a message is about.

One reader for every way in (queue and webhook). It understands S3's Records as AWS, MinIO and Ceph send them, S3's
events of Amazon EventBridge and SeaweedFS's own message, in the envelopes of SNS, CloudEvents 1.0 (structured, or the
body of the binary mode), Argo Events and its MinIO source.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from coda.storage.objects import ObjectStore
from coda.trigger.batch_versions import is_manifest

ENCODED = frozenset({"aws:s3", "minio:s3"})
"""Event sources that send URL-encoded keys; Ceph sends them as they are."""

ENVELOPES = 4
"""Envelopes inside each other that are opened; a bus puts S3's message into two at most."""

SEAWEEDFS_BUCKETS = "/buckets/"
"""Folder of SeaweedFS's filer that holds the buckets."""

MAX_KEY_BYTES = 1024
"""Length of a key that S3 allows."""


@dataclass(frozen=True)
class Notice:
    """Something was written at a key of a bucket.

    Attributes:
        bucket: Bucket.
        key: Key, decoded.
        opaque: What Ceph adds to each record of a topic (``opaqueData``): the sender's token.
    """

    bucket: str
    key: str
    opaque: str = ""


@dataclass(frozen=True)
class Message:
    """What a notification says.

    Attributes:
        notices: Objects that were created; none in a test event.
        problem: Why it cannot be understood; empty when it can.
    """

    notices: tuple[Notice, ...]
    problem: str = ""


class _UnreadableError(Exception):
    """The message is none of those that are known; the text says why."""


def read_message(body: str | bytes) -> Message:
    """Read the body of a notification, in whatever envelope it came.

    Anything that is no notification comes back with a problem, never as an exception: what to do with it is the
    business of whoever received it. Events other than creation are understood and hold no notices.
    """
    try:
        return Message(tuple(_opened(_parsed(body), ENVELOPES)))
    except _UnreadableError as error:
        return Message((), str(error))
    except (KeyError, TypeError, AttributeError) as error:
        return Message((), f"a record without {error}")
    except RecursionError:
        return Message((), "nested too deeply")


def manifest_keys(message: Message, landing: ObjectStore) -> list[str]:
    """Return the keys of manifests below the landing prefix that a message tells of, each once, in its order.

    Other buckets, other prefixes, other files, and keys that could mean another place (``..``, empty segments, control
    characters) are left out.
    """
    prefix = f"{landing.prefix}/" if landing.prefix else ""
    keys: dict[str, None] = {}
    for notice in message.notices:
        key = notice.key.removeprefix(prefix)
        inside = notice.bucket == landing.bucket and notice.key.startswith(prefix)
        if inside and is_manifest(key) and _is_plain(key):
            keys[key] = None
    return list(keys)


def fingerprint(body: str) -> str:
    """Return a short name for a message's content: the same for its duplicates."""
    return hashlib.sha256(body.encode()).hexdigest()[:32]


def _is_plain(key: str) -> bool:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, which no store can hold
        return False
    return size <= MAX_KEY_BYTES and key.isprintable() and not {"", ".", ".."} & set(key.split("/"))


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:  # not JSON, not UTF-8, or a number of thousands of digits
        raise _UnreadableError(f"not JSON: {error}") from error


def _opened(raw: Any, envelopes: int) -> Iterator[Notice]:
    """Yield the notices of a message, opening at most so many envelopes."""
    if not isinstance(raw, dict):
        raise _UnreadableError(f"a {type(raw).__name__} instead of an object")
    if raw.get("Event") == "s3:TestEvent":
        return
    records = _records(raw)
    if records is not None:
        yield from _recorded(records)
    elif {"detail-type", "detail"} <= raw.keys():
        yield from _of_eventbridge(raw)
    elif {"key", "event_type", "message"} <= raw.keys():
        yield from _of_seaweedfs(raw)
    else:
        inner = _content(raw)
        if inner is None:
            raise _UnreadableError("no Records")
        if envelopes == 0:
            raise _UnreadableError(f"more than {ENVELOPES} envelopes inside each other")
        yield from _opened(inner, envelopes - 1)


def _records(raw: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the records of S3 that a message holds, or None when it holds none."""
    if "Records" in raw:
        if not isinstance(raw["Records"], list):
            raise _UnreadableError("no Records: they are no list")
        return list(raw["Records"])
    if {"eventName", "s3"} <= raw.keys():  # one record by itself, as some CloudEvents sources send it
        return [dict(raw)]
    argo = raw.get("notification")  # Argo Events' MinIO source
    return list(argo) if isinstance(argo, list) else None


def _content(raw: Mapping[str, Any]) -> Any:
    """Return what an envelope holds, or None when this is none that is known."""
    if raw.get("Type") == "Notification" and "Message" in raw:  # SNS
        inner = raw["Message"]
    elif "data_base64" in raw:  # CloudEvents
        try:
            inner = base64.b64decode(raw["data_base64"], validate=True)
        except (binascii.Error, ValueError, TypeError) as error:
            raise _UnreadableError(f"data_base64 is not base64: {error}") from error
    elif "data" in raw and ("specversion" in raw or "context" in raw):  # CloudEvents; Argo Events
        inner = raw["data"]
    else:
        inner = raw.get("body")  # Argo Events' webhook and SQS sources
    return _parsed(inner) if isinstance(inner, str | bytes) else inner


def _recorded(records: list[dict[str, Any]]) -> Iterator[Notice]:
    for record in records:
        if not str(record.get("eventName", "")).removeprefix("s3:").startswith("ObjectCreated"):
            continue
        key = str(record["s3"]["object"]["key"])
        if record.get("eventSource") in ENCODED:
            key = unquote_plus(key)
        yield Notice(str(record["s3"]["bucket"]["name"]), key, str(record.get("opaqueData") or ""))


def _of_eventbridge(raw: Mapping[str, Any]) -> Iterator[Notice]:
    """Yield what an event of a bucket says; its key is as the object's, not encoded for a URL."""
    kind, detail = raw["detail-type"], raw["detail"]
    if not isinstance(detail, dict) or not {"bucket", "object"} <= detail.keys():
        raise _UnreadableError(f"an event {kind!r} that is not about an object of a bucket"[:200])
    if kind == "Object Created":
        yield Notice(str(detail["bucket"]["name"]), str(detail["object"]["key"]))


def _of_seaweedfs(raw: Mapping[str, Any]) -> Iterator[Notice]:
    """Yield where an entry of SeaweedFS's filer is after the event: a path below its folder of buckets."""
    change = raw["message"]
    # Go's JSON writes the fields of the protobuf message as they are declared, protobuf's own writes them in camel case
    entry = change.get("new_entry") or change.get("newEntry")
    if not entry or entry.get("is_directory") or entry.get("isDirectory"):
        return
    parent = change.get("new_parent_path") or change.get("newParentPath")
    path = f"{parent}/{entry['name']}" if parent else str(raw["key"])
    bucket, _, key = path.removeprefix(SEAWEEDFS_BUCKETS).partition("/")
    if path.startswith(SEAWEEDFS_BUCKETS) and key:
        yield Notice(bucket, key)
