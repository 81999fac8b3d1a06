"""Whose batches start nothing: the source that the default release was trained on."""

import logging
import time

from coda.registry.releases import DEFAULT_SCOPE, ReleaseLog
from coda.settings import Settings

log = logging.getLogger(__name__)

LOOK_S = 10.0
"""Seconds for which an answer is good: a new training on another source is noticed without a restart."""


class TrainingSource:
    """Looks up the default release's source.

    An entry of the log that cannot be read keeps nobody waiting: the newest that can be read says which source it is,
    and the steps of a run, which need the release itself, refuse it in their own words.
    """

    def __init__(self, settings: Settings) -> None:
        """Use the release log of these settings; nothing is read yet."""
        self._log = ReleaseLog(settings)
        self._source: str | None = None
        self._asked = float("-inf")
        self.trouble = ""

    def source(self) -> str | None:
        """Return the source of the default release, or None while there is no default release.

        Raises:
            TransientError: The release log is away.
        """
        if self._source is None or time.monotonic() - self._asked >= LOOK_S:
            entry, problems = self._log.newest_readable(DEFAULT_SCOPE)
            trouble = str(problems[0]) if problems else ""
            if trouble and trouble != self.trouble:
                log.error("The newest entry of the default release log cannot be read: %s", trouble)
            self.trouble = trouble
            self._source = entry.release.source if entry is not None else None
            self._asked = time.monotonic()
        return self._source
