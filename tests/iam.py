"""A small evaluator of IAM policies, and the actions that an S3 or SQS request needs.

Written from the published rules (explicit denial, then permission, else refusal), for the elements our policies use;
anything else in a policy is an error, so that nothing is silently taken for granted.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

ELEMENTS = {"Sid", "Effect", "Action", "Resource", "Principal", "Condition"}


@dataclass(frozen=True)
class Ask:
    """One action on one resource, with what a condition may look at."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


def read_policy(path: Path) -> list[dict[str, Any]]:
    """The statements of a policy file, checked for elements this evaluator does not know."""
    document = json.loads(path.read_text())
    assert document["Version"] == "2012-10-17"
    for statement in document["Statement"]:
        assert set(statement) <= ELEMENTS, statement
        assert statement["Effect"] in {"Allow", "Deny"}
        assert statement.get("Principal", "*") == "*"
    return document["Statement"]


def matching(statements: Sequence[Mapping[str, Any]], ask: Ask) -> list[Mapping[str, Any]]:
    """The statements that speak about what is asked."""
    return [
        statement
        for statement in statements
        if any(_like(pattern, ask.action) for pattern in statement["Action"])
        and any(_like(pattern, ask.resource) for pattern in statement["Resource"])
        and all(_holds(*condition, ask.context) for condition in statement.get("Condition", {}).items())
    ]


def permitted(own: Sequence[Mapping[str, Any]], of_buckets: Sequence[Mapping[str, Any]], ask: Ask) -> bool:
    """Whether an identity may do what it asks: its own policy permits it, and no policy at all denies it."""
    effects = {statement["Effect"] for statement in matching([*own, *of_buckets], ask)}
    granted = {statement["Effect"] for statement in matching(own, ask)}
    return "Deny" not in effects and "Allow" in granted


def asks_of(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> list[Ask]:
    """What an HTTP request to an object store or a queue asks for; path-style addresses."""
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    low = {name.lower(): value for name, value in headers.items()}
    if "x-amz-target" in low:
        queue = json.loads(body or b"{}").get("QueueUrl", "").rpartition("/")[2]
        return [Ask(f"sqs:{low['x-amz-target'].partition('.')[2]}", f"arn:aws:sqs:us-east-1:123456789012:{queue}")]
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    context = {"aws:SecureTransport": "true"}
    if "if-none-match" in low and method == "PUT":
        context["s3:if-none-match"] = low["if-none-match"]
    if not bucket:
        return [Ask("s3:ListAllMyBuckets", "*", context)]
    place = f"arn:aws:s3:::{bucket}/{key}" if key else f"arn:aws:s3:::{bucket}"
    if not key:
        if method == "POST" and "delete" in query:
            keys = re.findall(rb"<Key>(.*?)</Key>", body)
            return [Ask("s3:DeleteObject", f"{place}/{name.decode()}", context) for name in keys]
        action = "GetBucketLocation" if "location" in query else "ListBucket"
        return [Ask(f"s3:{action if method in {'GET', 'HEAD'} else 'CreateBucket'}", place, context)]
    if method == "DELETE":
        return [Ask("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", place, context)]
    asks = [Ask("s3:GetObject" if method in {"GET", "HEAD"} else "s3:PutObject", place, context)]
    if "x-amz-copy-source" in low:
        asks.append(Ask("s3:GetObject", f"arn:aws:s3:::{unquote(low['x-amz-copy-source']).lstrip('/')}", context))
    return asks


def _like(pattern: str, value: str) -> bool:
    words = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return re.fullmatch(words, value, re.DOTALL) is not None


def _holds(operator: str, wanted: Mapping[str, str], context: Mapping[str, str]) -> bool:
    if operator == "Null":
        return all((key not in context) == (value == "true") for key, value in wanted.items())
    if operator == "Bool":
        return all(context.get(key) == value for key, value in wanted.items())
    message = f"this evaluator does not know the condition {operator!r}"
    raise ValueError(message)
