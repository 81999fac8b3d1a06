"""What every step of every runner leaves behind: when it ran, and, when it failed, its own reason.

A pipeline engine reports "inner task failed" or an exit code; the reason must survive the container. It is written to
``runs/<run_id>/`` of the platform bucket, where the command line, the trigger and the report find it.
"""

import atexit
import errno
import gc
import json
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from coda.errors import CodaError, ConfigError, Problem, TransientError
from coda.settings import Settings, without_secrets
from coda.steps.orphan import end_with_runner
from coda.storage.objects import ObjectStore

NOT_STORED = "The reason could not be stored in the platform bucket"
"""Beginning of the line that a step prints when the object store was away as it failed."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
NO_ROOM_WORDS = ("no space left on device", "disk quota exceeded", "disk is full")
"""What libraries that raise no OSError say of a full disk (safetensors, SQLite), in lower case."""


@dataclass(frozen=True)
class Failure:
    """Why a step failed, as it is stored."""

    step: str
    error: str
    exit_code: int
    message: str
    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        """Return the reason as a person should read it."""
        lines = [f"Step '{self.step}' failed: {self.message}"]
        return "\n".join([*lines, *(f"  - {problem}" for problem in self.problems)])


@dataclass(frozen=True)
class Running:
    """A step under way: what it keeps with its run, beside the artifacts that the engine may forget."""

    run_id: str
    store: ObjectStore

    def keep(self, path: Path, name: str) -> None:
        """Store a small file as ``runs/<run_id>/<name>`` in the platform bucket."""
        self.store.upload(path, f"runs/{self.run_id}/{name}")


@contextmanager
def running(step: str, run_id: str, settings: Settings) -> Iterator[Running]:
    """Run a step: record its time, or its failure, and end the process with the documented exit code.

    Args:
        step: Name of the step.
        run_id: Run it belongs to.
        settings: Where the platform bucket is.

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
        store.put(f"runs/{run_id}/steps/{step}.json", json.dumps(times).encode(), content_type="application/json")
    except CodaError as error:
        _end(store, run_id, step, error)
    except BrokenPipeError:
        # whoever read what this step prints was killed, and the run with it; the step itself is sound
        _end(store, run_id, step, TransientError("The process that ran this step is gone."))
    except Exception as error:
        if is_full_disk(error):
            _end(store, run_id, step, no_room(step, error))
        # a defect of ours: the traceback goes to the log, the sentence to the person who waits for the run
        message = f"{type(error).__name__}: {error}"
        _record_failure(store, run_id, Failure(step, type(error).__name__, 1, message, ()))
        sys.stderr.write(without_secrets(traceback.format_exc()))
        # not raised again: Python would print the words of other libraries as they are
        raise SystemExit(1) from error


def read_failure(run_id: str, settings: Settings) -> Failure | None:
    """Return why the run failed, or None when no step recorded a failure."""
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    key = f"runs/{run_id}/failure.json"
    if not store.exists(key):
        return None
    raw = json.loads(store.get(key))
    return Failure(**{**raw, "problems": tuple(Problem(**problem) for problem in raw["problems"])})


def clear_failure(run_id: str, settings: Settings) -> None:
    """Forget the failure of an earlier attempt at the same run."""
    ObjectStore(settings.platform, settings.s3_endpoint).delete(f"runs/{run_id}/failure.json")


def _end(store: ObjectStore, run_id: str, step: str, error: CodaError) -> NoReturn:
    """Leave the reason where people look for it, and end the process with the error's exit code."""
    failure = Failure(step, type(error).__name__, error.exit_code, error.message, error.problems)
    _record_failure(store, run_id, failure)
    with suppress(BrokenPipeError):
        sys.stderr.write(without_secrets(f"{failure}\n"))
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


def _record_failure(store: ObjectStore, run_id: str, failure: Failure) -> None:
    body = without_secrets(json.dumps(asdict(failure))).encode()
    try:
        store.put(f"runs/{run_id}/failure.json", body, content_type="application/json")
    except TransientError as error:
        # the bucket may be what failed; the reason still reaches the log
        sys.stderr.write(without_secrets(f"{NOT_STORED}: {error.message}\n"))
