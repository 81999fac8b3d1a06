"""The trigger's log: lines for people, or one JSON object a line for a log service."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

from coda.settings import without_secrets
from coda.trigger.ledger import LedgerState

CHATTY = ("botocore", "urllib3")
"""Libraries that log each try of theirs; when all of them failed, the trigger says so itself, once."""

LogFormat = Literal["text", "json"]

ABOUT = ("run_id", "source", "batch", "state", "manifest_digest", "attempt")
"""What a line is about, where that is known; the names are those of the ledger."""


def about(state: LedgerState) -> dict[str, object]:
    """Return the fields of a log line about a state besides its message: `extra` of the logging calls."""
    return {name: getattr(state, name) for name in ABOUT}


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, what it is about, and a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; line breaks inside are escaped, so nothing that is logged can pass for another line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: getattr(record, name) for name in ABOUT if hasattr(record, name)})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(line, default=str))


class Lines(logging.Formatter):
    """A line for people, and a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without secrets: other libraries put addresses with passwords into their errors."""
        return without_secrets(super().format(record))


def log_to(form: LogFormat, stream: TextIO | None = None) -> None:
    """Send the log of this process to a stream, in one of the two forms.

    Args:
        form: 'text' or 'json'.
        stream: Where to; standard error when not given.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else Lines("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for library in CHATTY:
        logging.getLogger(library).setLevel(logging.ERROR)
