"""What the tests of bad deliveries and bad days look at: the ledger, the registries, and the words people read."""

import os
from contextlib import contextmanager
from dataclasses import replace

from typer.testing import CliRunner

from coda.cli.ledger import app as ledger_app
from coda.registry.releases import ReleaseLog
from coda.registry.versions import list_versions
from coda.runners.submit import LocalSubmitter
from coda.storage.data_registry import list_batches
from coda.storage.objects import store_for
from coda.trigger.ledger import Ledger
from coda.trigger.service import Pace, Trigger

PACE = Pace(lease_s=5.0, backoff_s=0.5, tick_s=0.2)
NOT_FOR_PEOPLE = ("Traceback", "object at 0x", "b'\\x", "\\x", "NoneType", "[Errno", "Input should be", "None", "$")
"""What no message for a biologist or an operator may hold."""


def assert_readable(text):
    found = [words for words in NOT_FOR_PEOPLE if words in text]
    assert not found, (found, text)


def trigger_of(loop, work=None, **changes):
    submitter = LocalSubmitter(loop.settings, work or loop.folder / "work")
    return Trigger(
        loop.settings, submitter, params=loop.params, ignore_sources=("lab_a",), pace=replace(PACE, **changes)
    )


def entry_of(loop, name):
    (entry,) = Ledger(store_for(loop.settings.platform, loop.settings)).entries(name)
    return entry


def registered(loop, source):
    """All that a batch could leave in a registry."""
    return (
        list_versions(loop.settings),
        ReleaseLog(loop.settings).history(source),
        [(item.batch, item.revision) for item in list_batches(source, settings=loop.settings)],
    )


def shown(loop, *arguments):
    """Return what `coda ledger` shows an operator."""
    with variables(loop.settings.environment | {"COLUMNS": "400"}):
        done = CliRunner().invoke(ledger_app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0
    assert_readable(done.output)
    return done.output


@contextmanager
def variables(values):
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
