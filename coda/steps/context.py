"""What every step of every runner leaves behind: when it ran, and, when it failed, its own reason.

A pipeline engine reports "inner task failed" or an exit code; the reason must survive the container. It is written to
``runs/<run_id>/`` of the platform bucket, where the command line, the trigger and the report find it.
"""

import atexit
import gc
import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from coda.contracts import FailureRecord
from coda.errors import (
    NO_ROOM,
    CodaError,
    ConfigError,
    ContractError,
    IntegrityError,
    Problem,
    TransientError,
    machine_error,
)
from coda.settings import Settings, without_secrets
from coda.steps.orphan import end_with_runner
from coda.storage.objects import ObjectStore
from coda.storage.records import find_record

NOT_STORED = "The reason could not be stored in the platform bucket"
"""Beginning of the line that a step prints when the object store was away as it failed."""

NO_ROOM_WORDS = ("no space left on device", "disk quota exceeded", "disk is full")
"""What libraries that raise no OSError say of a full disk (safetensors, SQLite), in lower case."""


@dataclass(frozen=True)
class Running:
    """A step under way: what it keeps with its run, beside the artifacts that the engine may forget."""

    run_id: str
    store: ObjectStore

    def keep(self, path: Path, name: str) -> None:
        """Store a small file as ``runs/<run_id>/<name>`` in the platform bucket."""
        self.store.upload(path, f"runs/{self.run_id}/{name}")


@contextmanager
def running(step: str, run_id: str, settings: Settings, *, part: str = "") -> Iterator[Running]:
    """Run a step: record its time, or its failure, and end the process with the documented exit code.

    Args:
        step: Name of the step.
        run_id: Run it belongs to.
        settings: Where the platform bucket is.
        part: Which of several parts of the step, where it is done in parts.

    Raises:
        SystemExit: The step raised a `CodaError`; the code is the error's (`docs/errors.md`).
    """
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    started = time.time()
    end_with_runner()
    # Python searches all that is loaded for garbage as it ends: 1 to 2 s of a step that holds torch and MLflow
    atexit.register(gc.freeze)
    try:
        yield Running(run_id, store)
        times = {"name": step, "started": started, "seconds": time.time() - started}
        name = f"{step}-{part}" if part else step
        store.put(f"runs/{run_id}/steps/{name}.json", json.dumps(times).encode(), content_type="application/json")
    except (ContractError, IntegrityError) as error:
        # a reader that takes any error for damage may have met a failing machine: that is no verdict on data
        _end(store, run_id, step, machine_error(error) or error)
    except CodaError as error:
        _end(store, run_id, step, error)
    except Exception as error:
        if is_full_disk(error):
            _end(store, run_id, step, no_room(step, error))
        if (machine := machine_error(error)) is not None:
            _say(traceback.format_exc())
            _end(store, run_id, step, machine)
        # a defect of ours: the traceback goes to the log, the sentence to the person who waits for the run
        message = f"{type(error).__name__}: {error}"
        failure = FailureRecord(step=step, error=type(error).__name__, exit_code=1, message=message)
        _record_failure(store, run_id, failure)
        _say(traceback.format_exc())
        # not raised again: Python would print the words of other libraries as they are
        raise SystemExit(1) from error


def read_failure(run_id: str, settings: Settings) -> FailureRecord | None:
    """Return why the run failed, or None when no step recorded a failure.

    Raises:
        UnreadableRecordError: What is recorded is no failure.
    """
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    return find_record(store, f"runs/{run_id}/failure.json", FailureRecord)


def clear_failure(run_id: str, settings: Settings) -> None:
    """Forget the failure of an earlier attempt at the same run."""
    ObjectStore(settings.platform, settings.s3_endpoint).delete(f"runs/{run_id}/failure.json")


def _end(store: ObjectStore, run_id: str, step: str, error: CodaError) -> NoReturn:
    """Write the failure record, and end the process with the error's exit code."""
    failure = FailureRecord.of(step, error)
    _record_failure(store, run_id, failure)
    _say(f"{failure}\n")
    raise SystemExit(error.exit_code) from error


def is_full_disk(error: BaseException) -> bool:
    """Return whether an error of any library means a disk that is full or may not be written."""
    words = str(error).lower()
    return (isinstance(error, OSError) and error.errno in NO_ROOM) or any(text in words for text in NO_ROOM_WORDS)


def no_room(what: str, error: BaseException) -> ConfigError:
    """Return the error for the operator of a full disk.

    Args:
        what: What could not be written, as the end of a sentence: the name of a step.
        error: What the operating system or a library said.
    """
    where = str(getattr(error, "filename", None) or "the disk that this step writes to")
    found = str(getattr(error, "strerror", None) or " ".join(str(error).split())[:200])
    remedy = "Free space there, or give the run a work folder on another disk; finished steps are not repeated."
    problem = Problem(where, found, "a disk with free space that can be written", remedy)
    return ConfigError(f"There is no room on disk for what {what} writes.", [problem])


def _say(text: str) -> None:
    """Write to standard error, whose reader may be gone."""
    with suppress(OSError):
        sys.stderr.write(without_secrets(text))


def _record_failure(store: ObjectStore, run_id: str, failure: FailureRecord) -> None:
    body = without_secrets(failure.to_json()).encode()
    try:
        store.put(f"runs/{run_id}/failure.json", body, content_type="application/json")
    except TransientError as error:
        # the bucket may be what failed; the reason still reaches the log
        _say(f"{NOT_STORED}: {error.message}\n")
