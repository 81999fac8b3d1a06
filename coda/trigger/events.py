"""S3 notifications: which manifests a message is about."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

ENCODED = frozenset({"aws:s3", "minio:s3"})
"""Event sources that send URL-encoded keys; Ceph sends them as they are."""


@dataclass(frozen=True)
class Notice:
    """Something was written at a key of a bucket."""

    bucket: str
    key: str


@dataclass(frozen=True)
class Message:
    """What a notification says.

    Attributes:
        notices: Objects that were created; none in a test event.
        problem: Why it cannot be understood; empty when it can.
    """

    notices: tuple[Notice, ...]
    problem: str = ""


def read_message(body: str) -> Message:
    """Read the body of a notification, straight from S3 or wrapped by SNS.

    Anything that is no notification comes back with a problem, never as an exception: what to do with it is the
    queue's business. Events other than creation are understood and hold no notices.
    """
    try:
        raw = json.loads(body)
        if isinstance(raw, dict) and raw.get("Type") == "Notification" and "Message" in raw:
            raw = json.loads(raw["Message"])
    except (json.JSONDecodeError, TypeError) as error:
        return Message((), f"not JSON: {error}")
    if not isinstance(raw, dict):
        return Message((), f"a {type(raw).__name__} instead of an object")
    if raw.get("Event") == "s3:TestEvent":
        return Message(())
    records = raw.get("Records")
    if not isinstance(records, list):
        return Message((), "no Records")
    try:
        return Message(tuple(_notices(records)))
    except (KeyError, TypeError, AttributeError) as error:
        return Message((), f"a record without {error}")


def fingerprint(body: str) -> str:
    """Return a short name for a message's content: the same for its duplicates."""
    return hashlib.sha256(body.encode()).hexdigest()[:32]


def _notices(records: list[dict[str, Any]]) -> Iterator[Notice]:
    for record in records:
        if not str(record.get("eventName", "")).removeprefix("s3:").startswith("ObjectCreated"):
            continue
        key = str(record["s3"]["object"]["key"])
        if record.get("eventSource") in ENCODED:
            key = unquote_plus(key)
        yield Notice(str(record["s3"]["bucket"]["name"]), key)
