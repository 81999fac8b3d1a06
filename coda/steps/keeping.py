"""Checkpoints of long steps beyond the life of a process: a local folder or object storage, and SIGTERM."""

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from coda.settings import Settings
from coda.storage.objects import ObjectStore
from coda.training.checkpoint import KEPT, Checkpoints

LAST = ("digests.json",)
"""Sent last, so that a checkpoint whose copy was cut short is seen to be incomplete and passed over."""


@contextmanager
def kept_checkpoints(settings: Settings, run_id: str, step: str) -> Iterator[Checkpoints]:
    """Give a step its checkpoints, those of an earlier attempt included; forget them when the step succeeds.

    Args:
        settings: ``checkpoints`` says where: a folder, or ``s3://bucket/prefix``.
        run_id: Run that the step belongs to; the same run started again finds its checkpoints.
        step: Name of the step.
    """
    if not settings.checkpoints.startswith("s3://"):
        checkpoints = Checkpoints(Path(settings.checkpoints) / run_id / step)
        yield checkpoints
        checkpoints.forget()
        return
    store = ObjectStore(f"{settings.checkpoints.rstrip('/')}/{run_id}/{step}", settings.s3_endpoint)
    with tempfile.TemporaryDirectory(prefix=f"coda-{step}-") as folder:
        store.download_folder("", Path(folder))

        def send(path: Path) -> None:
            store.upload_folder(path, path.name, last=LAST)
            training = path.name.rstrip("0123456789")  # a step may train twice, each with its own checkpoints
            own = {name for name in _folders(store) if name.rstrip("0123456789") == training}
            passed_over = {name for name in own if name > path.name}
            for old in (*sorted(own - passed_over - {path.name})[: -(KEPT - 1)], *sorted(passed_over)):
                _remove(store, old)

        yield Checkpoints(Path(folder), written=send, place=store.url(""))
        for name in _folders(store):
            _remove(store, name)


@contextmanager
def stopping_on_sigterm() -> Iterator[Callable[[], bool]]:
    """Give a step a function to call between iterations: has SIGTERM been received?

    Kubernetes sends SIGTERM some seconds before it kills a pod; the step uses them to write a checkpoint. Outside the
    main thread, where signals cannot be caught, the answer is always no.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        asked.set()
        # who read the other end may be what was killed: an error here would be raised in whatever the step is doing
        with suppress(OSError):
            os.write(2, b"Asked to stop: a checkpoint is written first.\n")

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def _folders(store: ObjectStore) -> set[str]:
    return {info.key.split("/")[0] for info in store.list() if "/" in info.key}


def _remove(store: ObjectStore, name: str) -> None:
    for info in list(store.list(f"{name}/")):
        store.delete(info.key)
