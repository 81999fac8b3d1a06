"""One boto3 client for all stores of a process that talk to the same service in the same way.

Making a client takes boto3 a tenth of a second, since it reads its description of the service; clients may be shared
by threads, but not across a fork.
"""

import os
import threading
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError
from botocore.handlers import BUILTIN_HANDLERS

from coda.errors import Problem, ServiceRefusedError
from coda.settings import without_secrets
from coda.storage.aws_settings import connecting, require_usable

PARSING = "before-parse.s3.*"
"""What botocore calls the moment before it reads an answer."""

_CLIENTS: dict[tuple[object, ...], Any] = {}
_LOCK = threading.Lock()


def s3_client(endpoint: str | None, *, attempts: int, timeout_s: float, unsigned: bool = False) -> Any:
    """Return the client of this process for a service.

    Args:
        endpoint: URL of the service; none for AWS itself.
        attempts: Tries of one request, the first included.
        timeout_s: Seconds without a byte after which a request counts as failed.
        unsigned: Whether requests are sent without credentials, as public buckets take them.

    Returns:
        A boto3 S3 client with path-style addresses, signature version 4, standard retries, and no checksums beyond
        what a request needs. Other AWS_* variables give another client.

    Raises:
        ConfigError: A setting or a credential of the environment cannot be used.
    """
    variables = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    key = (os.getpid(), endpoint, attempts, timeout_s, unsigned, variables)
    with _LOCK:
        if key not in _CLIENTS:
            _CLIENTS[key] = _connect(endpoint, attempts, timeout_s, unsigned=unsigned)
        return _CLIENTS[key]


def sqs_client(endpoint: str) -> Any:
    """Return a new client of a queue's service.

    Raises:
        ConfigError: A setting or a credential of the environment cannot be used.
    """
    config = Config(retries={"mode": "standard", "max_attempts": 4}, connect_timeout=5, read_timeout=30)
    return _client("sqs", endpoint, config)


def _client(service: str, endpoint: str | None, config: Config) -> Any:
    require_usable()
    with connecting(f"the client of {endpoint or 'AWS'}"):
        session = boto3.session.Session()
        if config.signature_version is not UNSIGNED and (credentials := session.get_credentials()) is not None:
            credentials.get_frozen_credentials()  # some are fetched when they are first needed: it is now
        region = session.region_name or "us-east-1"
        return session.client(service, endpoint_url=endpoint, region_name=region, config=config)


def _connect(endpoint: str | None, attempts: int, timeout_s: float, *, unsigned: bool) -> Any:
    config = Config(
        signature_version=UNSIGNED if unsigned else "s3v4",
        s3={"addressing_style": "path"},
        retries={"mode": "standard", "max_attempts": attempts},
        connect_timeout=min(5.0, timeout_s),
        read_timeout=timeout_s,
        max_pool_connections=32,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client = _client("s3", endpoint, config)
    client.meta.events.register_last("before-call.s3", _send_at_once)
    # before botocore's own looks, which take a page for a store that fails
    theirs = [entry[1] for entry in BUILTIN_HANDLERS if entry[0] == PARSING]
    for handler in theirs:
        client.meta.events.unregister(PARSING, handler)
    for handler in [_require_whole, _require_s3, *theirs]:
        client.meta.events.register_first(PARSING, handler)
    return client


def _send_at_once(params: dict[str, Any], **_: Any) -> None:
    """Send bodies without asking first ('Expect: 100-continue').

    Where a connection ends within the answer to that, botocore waits for an empty line for ever, at full speed.
    """
    params["headers"].pop("Expect", None)


def _require_whole(operation_model: Any, response_dict: Any, **_: Any) -> None:
    """Refuse an answer that broke off within its header lines: the HTTP client takes it for one without a body.

    An object would be read as empty, and a prefix as one that holds nothing.
    """
    if operation_model.http["method"] not in {"GET", "HEAD"} or response_dict["status_code"] >= 300:
        return
    headers, body = response_dict["headers"], response_dict["body"]
    length = str(headers.get("content-length", ""))
    whole = length.isdigit() or "transfer-encoding" in headers
    if whole and length and isinstance(body, bytes) and "content-encoding" not in headers:
        whole = operation_model.http["method"] == "HEAD" or len(body) == int(length)
    if not whole:
        raise ConnectionClosedError(endpoint_url=operation_model.name)


_OF_IDENTITY = frozenset({401, 403})
"""Refusals that are the operator's whoever gives them; rights and credentials are the first to look at."""

NOT_MODIFIED = 304
_TAGGED = frozenset({"PutObject", "GetObject", "HeadObject", "UploadPart"})


def _require_s3(operation_model: Any, response_dict: Any, endpoint_url: str | None = None, **_: Any) -> None:
    """Refuse what is no object store: a sign-in page takes a PUT, has nothing to list, and its 404 is no lost object.

    The success of a PUT without the object's tag and without content says nothing at all: its header lines broke off.
    """
    status, headers, body = response_dict["status_code"], response_dict["headers"], response_dict["body"]
    told = body[:2000] if isinstance(body, bytes) else b""
    if b"<Error" in told or status == 429 or status >= 500:
        return
    name, location = operation_model.name, ""
    if status >= 300:
        # the answer to a HEAD has no body; nor has what AWS says of a bucket that is elsewhere
        ours = any(header.lower().startswith("x-amz-") for header in headers)
        known = ours or (status == NOT_MODIFIED if status < 400 else not told or status in _OF_IDENTITY)
        location = f" to {headers['location']}" if "location" in headers else ""
    else:
        tagged = name not in _TAGGED or "etag" in headers
        if operation_model.http["method"] == "PUT" and not tagged and not body:
            raise ConnectionClosedError(endpoint_url=endpoint_url or name)
        known = tagged and (not name.startswith("List") or b"<List" in told)
    if not known:
        if hasattr(body, "close"):
            body.close()  # of an object that would have been read piece by piece
        kind = headers.get("content-type", "no content type")
        found = f"HTTP {status}{location} with {kind}, without what an object store answers to {name}"
        remedy = "Let AWS_ENDPOINT_URL_S3 name the object store itself, past any sign-in page."
        problem = Problem(
            endpoint_url or "AWS_ENDPOINT_URL_S3", without_secrets(found)[:400], "an answer of S3", remedy
        )
        raise ServiceRefusedError("Something else answers in place of the object store.", [problem])
