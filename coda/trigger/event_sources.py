"""The event sources of the trigger: each is declared in its own file, and stands here to be selected by its name."""

from collections.abc import Iterable

from coda.errors import ConfigError, Problem
from coda.trigger.address_file import AddressFile
from coda.trigger.event_source import EventSource
from coda.trigger.polling import Poll
from coda.trigger.queue import Queue
from coda.trigger.webhook_server import WebhookServer

EVENT_SOURCES: dict[str, type[EventSource]] = {
    source.name: source for source in (Queue, Poll, WebhookServer, AddressFile)
}
"""Name -> event source, in the order in which they are polled."""


def chosen(events: Iterable[str]) -> dict[type[EventSource], str]:
    """Return the event sources of ``NAME`` or ``NAME=WHERE``, and where each is; the last of a name counts.

    Raises:
        ConfigError: There is none of this name.
    """
    places = {name: where for name, _, where in (item.partition("=") for item in events)}
    known = "; ".join(f"{source.name} ({source.says})" for source in EVENT_SOURCES.values())
    problems = [
        Problem("--events", repr(name), known, "Choose one of these.") for name in places if name not in EVENT_SOURCES
    ]
    if problems:
        raise ConfigError("There is no such event source.", problems)
    return {source: places[name] for name, source in EVENT_SOURCES.items() if name in places}
