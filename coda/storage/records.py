"""Records that another process wrote into a bucket: read in bounds, more fields tolerated, nonsense refused.

A record that cannot be read is the end of what it is about, never of whoever reads it: the error is of one class, names
the object, and says what can be typed.
"""

import json
from typing import Any, TypeVar

from coda.contracts import Contract
from coda.errors import ContractError, IntegrityError, Problem
from coda.storage.failures import ObjectNotFoundError, ObjectTooLargeError
from coda.storage.objects import ObjectStore

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""Size of the largest record that is read; those of this platform have some kilobytes."""

Record = TypeVar("Record", bound=Contract)


class UnreadableRecordError(IntegrityError):
    """A record in the bucket is not what was written, or was written by a newer program."""


def read_record(store: ObjectStore, key: str, kind: type[Record], *, at_most: int = MAX_RECORD_BYTES) -> Record:
    """Return a record.

    Raises:
        ObjectNotFoundError: There is no such object.
        UnreadableRecordError: It is too large, no JSON, of another version, or breaks its contract.
        TransientError: The store is away.
    """
    body = _body(store, key, at_most)
    try:
        return kind.stored(body, store.url(key))
    except ContractError as error:
        raise _unreadable(store.url(key), kind.__name__, list(error.problems)) from error


def find_record(store: ObjectStore, key: str, kind: type[Record], *, at_most: int = MAX_RECORD_BYTES) -> Record | None:
    """Return a record, or None when there is no such object; see `read_record`."""
    try:
        return read_record(store, key, kind, at_most=at_most)
    except ObjectNotFoundError:
        return None


def read_object(store: ObjectStore, key: str) -> dict[str, Any]:
    """Return a JSON object that has no contract of its own; raises as `read_record` does."""
    body = _body(store, key, MAX_RECORD_BYTES)
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        problem = Problem(store.url(key), f"text that is not JSON ({error})"[:300], "a JSON object", _REMEDY)
        raise _unreadable(store.url(key), "JSON object", [problem]) from error
    if not isinstance(raw, dict):
        problem = Problem(store.url(key), f"a {type(raw).__name__}", "a JSON object", _REMEDY)
        raise _unreadable(store.url(key), "JSON object", [problem])
    return raw


_REMEDY = "Find out who wrote it; restore the bucket's own version of the object, or set it aside (docs/trigger.md)."


def _body(store: ObjectStore, key: str, at_most: int) -> bytes:
    try:
        return store.get(key, at_most=at_most)
    except ObjectTooLargeError as error:
        raise _unreadable(store.url(key), "record", list(error.problems)) from error


def _unreadable(where: str, name: str, problems: list[Problem]) -> UnreadableRecordError:
    told = [Problem(item.where, item.found, item.expected, _REMEDY) for item in problems[:5]]
    return UnreadableRecordError(f"{where} cannot be read as {name}.", told)
