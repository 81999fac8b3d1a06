"""`coda registry` in this process, for the tests of its verbs."""

from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from coda.cli.registry import app
from coda.settings import Settings


@pytest.fixture
def run(services: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the command, returning what it prints; errors come through as they are."""
    for name, value in services.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "220")

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return call
