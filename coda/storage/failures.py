"""What an S3 client raises, as errors of this library: who must act, and on what."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boto3.exceptions import S3UploadFailedError
from botocore import exceptions as aws
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError
from urllib3.exceptions import HTTPError as Urllib3Error

from coda.errors import CodaError, ConfigError, Problem, TransientError
from coda.settings import without_secrets
from coda.storage.aws_settings import OUTAGES, wrong_setting


class ObjectNotFoundError(CodaError):
    """There is no object of this name (or no longer)."""


class ObjectTooLargeError(CodaError):
    """An object is larger than its reader expected; none of it was read."""


MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
LOST_RACE = frozenset({"PreconditionFailed", "412"})
BEYOND = frozenset({"InvalidRange", "416"})
"""A part was asked for that begins beyond the end of the object."""
COLLISION = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
"""Two conditional writes met inside the service; it asks to try again."""

_BUSY = frozenset(
    {
        "InternalError", "InternalServerError", "ServiceUnavailable", "SlowDown", "SlowDownRead", "SlowDownWrite",
        "RequestTimeout", "RequestTimeoutException", "Throttling", "ThrottlingException", "TooManyRequests",
        "TooManyRequestsException", "RequestLimitExceeded", "RequestThrottled",
        "BandwidthLimitExceeded", "InternalFailure",
        "500", "502", "503", "504", "429",
        # of an upload that ended when its last answer was lost, or that the store's clean-up took: begin it again
        "NoSuchUpload",
    }
)  # fmt: skip

_REMEDIES = {
    "NoSuchBucket": "Create the bucket, or correct its name in the settings (docs/settings.md).",
    "InvalidAccessKeyId": "Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "SignatureDoesNotMatch": "Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    "AccessDenied": "Give this identity the right it lacks on this bucket and prefix.",
    "403": "Give this identity the right it lacks on this bucket and prefix.",
    "RequestTimeTooSkewed": "Set this machine's clock; it differs too much from the service's.",
    "PermanentRedirect": "Set AWS_DEFAULT_REGION to the region of the bucket.",
    "301": "Set AWS_DEFAULT_REGION to the region of the bucket.",
    "AuthorizationHeaderMalformed": "Set AWS_DEFAULT_REGION to the region of the bucket.",
    "IllegalLocationConstraintException": "Set AWS_DEFAULT_REGION to the region of the bucket.",
    "InvalidObjectState": "Restore the object from its archive class (`aws s3api restore-object`), then repeat.",
    "NotImplemented": "Use an object store that supports this request (docs/decisions/0003-release-log.md).",
    "QueueDoesNotExist": "Create the queue, or correct CODA_QUEUE_URL.",
    "NonExistentQueue": "Create the queue, or correct CODA_QUEUE_URL.",
}

_OF_CREDENTIALS = re.compile(r"token|expired|credential|signature|auth|security|accesskey|client|signed", re.IGNORECASE)
"""Names that services give to a refused identity: there are many, and each service has its own."""

_RENEW = "Renew the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or `aws sso login`)."

BROKEN_OFF = (aws.ReadTimeoutError, aws.ResponseStreamingError, aws.IncompleteReadError, Urllib3Error)
"""What reading a body raises when the connection breaks off."""

_AWAY = (
    *OUTAGES,
    *BROKEN_OFF,
    RetriesExceededError,
    ResponseParserError,  # half an answer
    ConnectionError,
)
"""Roots of what a service that is away makes a client raise; whatever else botocore raises, its settings made it."""


def code_of(error: aws.ClientError) -> str:
    """Return the service's own error code, or the HTTP status where it sent none."""
    answer = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    return code or str(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


@contextmanager
def explained(action: str, uri: str, endpoint: str | None, what: str = "the object store") -> Iterator[None]:
    """Turn what boto3 raises inside the block into the errors of this library.

    Args:
        action: What is being done, as a verb: "read", "write", "list".
        uri: Full URI of the object or prefix, for the message.
        endpoint: Endpoint URL, for the message; none for AWS itself.
        what: What the service is, in words.

    Raises:
        TransientError: The service is away, overloaded or answered 5xx after boto3's own retries.
        ConfigError: The bucket, the credentials, the rights, the clock or the local disk must be put right.
        ObjectNotFoundError: There is no such object.
    """
    service = endpoint or "AWS"
    try:
        yield
    except aws.ClientError as error:
        raise _answered(error, action, uri, service, what) from error
    except S3UploadFailedError as error:
        # boto3 keeps the service's words, but not its error code, in this one
        answer = error.__context__
        if isinstance(answer, aws.ClientError):
            raise _answered(answer, action, uri, service, what) from error
        raise TransientError(f"Could not {action} {uri}: {_one_line(error)}") from error
    except (aws.BotoCoreError, *_AWAY, OSError) as error:
        if problem := wrong_setting(error):
            raise ConfigError(f"Could not {action} {uri}.", [problem]) from error
        if isinstance(error, OSError) and not isinstance(error, _AWAY):
            raise
        problem = Problem(
            service,
            f"{type(error).__name__}: {_one_line(error)}",
            f"{what}, with an answer",
            "Check that the service is up and reachable from here; the step can be repeated safely.",
        )
        raise TransientError(f"Could not {action} {uri}: {what} does not answer.", [problem]) from error


@contextmanager
def disk_explained(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk inside the block into a ConfigError that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}:
            raise
        remedy = "Free some space or choose another folder; the step can be repeated safely."
        problem = Problem(str(path), str(error.strerror), "a folder with free space that can be written", remedy)
        raise ConfigError(f"{path} cannot be written.", [problem]) from error


def _answered(error: aws.ClientError, action: str, uri: str, service: str, what: str) -> CodaError:
    code = code_of(error).rpartition(".")[2]  # SQS: AWS.SimpleQueueService.NonExistentQueue
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
    words = _one_line(error.response.get("Error", {}).get("Message") or error)
    if code in MISSING:
        remedy = "Check the name; if it was there before, look who deleted it."
        problem = Problem(uri, "no object", "an object of this name", remedy)
        return ObjectNotFoundError(f"Could not {action} {uri}: there is no such object.", [problem])
    if code in _BUSY or (status >= 500 and code not in _REMEDIES) or status == 429:
        remedy = "Repeat the step later; if it lasts, look at the service's own log."
        problem = Problem(service, f"{code} ({words})", "an answer", remedy)
        return TransientError(f"Could not {action} {uri}: {what} is overloaded or failing.", [problem])
    problem = Problem(uri, f"{code} ({words}) from {service}", "an accepted request", _remedy(code, status))
    if code == "InvalidObjectState":
        return CodaError(f"Could not {action} {uri}: it is archived.", [problem])  # says nothing of other objects
    refused = code in _REMEDIES or status in {401, 403} or _OF_CREDENTIALS.search(code)
    return (ConfigError if refused else CodaError)(f"Could not {action} {uri}.", [problem])


def _remedy(code: str, status: int) -> str:
    if code in _REMEDIES:
        return _REMEDIES[code]
    if _OF_CREDENTIALS.search(code) or status == 401:
        return _RENEW
    return _REMEDIES["403"] if status == 403 else "Look at the service's log."


def _one_line(value: object) -> str:
    # cleaned before it is cut: half a secret would not be recognised
    return without_secrets(" ".join(str(value).split()))[:300]
