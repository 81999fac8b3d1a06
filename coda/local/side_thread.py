"""Work that runs in a thread beside the main one, and ends with it."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

Work = Callable[[threading.Event], None]
"""Does the work; it looks at the event now and then, and ends soon after it is set."""


class Beside:
    """A context manager: leaving it waits for the work; what either side raises ends both."""

    def __init__(self, work: Work) -> None:
        """Take the work; it begins when the context is entered."""
        self._work = work
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the end, at once asked for where the main thread failed."""
        try:
            if error is not None:
                self._stopping.set()
            self._thread.join()
        except BaseException:  # the person who waits has had enough
            self._stopping.set()
            self._thread.join()
            raise
        if error is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work(self._stopping)
        except BaseException as error:  # noqa: BLE001  raised again where the work was begun
            self._error = error
