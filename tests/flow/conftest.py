"""One trained platform for every flow test: training takes most of a minute, so it happens once a session."""

import os

import pytest

from coda.local.services import EmbeddedServices
from tests.flow.loop import Loop, smoke_params


@pytest.fixture(scope="session")
def trained(tmp_path_factory, root):
    """A platform with a trained and released source; its services live until the session ends."""
    before = dict(os.environ)
    folder = tmp_path_factory.mktemp("loop")
    with EmbeddedServices(folder / "services") as services:
        found = Loop(folder, services, smoke_params(root))
        outcome = found.train()
        assert outcome.outcome == "released", outcome.sentence
        # tests of other folders, which may come in between, have services of their own
        restore(before)
        yield found


@pytest.fixture(scope="module")
def loop(trained):
    """The trained platform, with the environment that leads to its services."""
    before = dict(os.environ)
    os.environ.update(trained.services.environment)
    yield trained
    restore(before)


def restore(environment):
    os.environ.clear()
    os.environ.update(environment)
