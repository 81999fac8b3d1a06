"""A platform on loopback, and small planted steps for pipelines that really run."""

import os
from pathlib import Path

import pytest
from servers import moto_server

__all__ = ["moto_server"]

PLANTED = Path(__file__).parent / "planted"


class Planted:
    """What the planted steps did, and how they are told to misbehave."""

    def __init__(self, calls, patch):
        self.calls_file, self.patch = calls, patch

    @property
    def calls(self):
        return self.calls_file.read_text().split() if self.calls_file.exists() else []

    def misbehave(self, step, how):
        self.patch.setenv(f"PLANTED_{step.upper()}", how)

    def verdict(self, word):
        self.patch.setenv("PLANTED_VERDICT", word)


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Steps of the pipelines' processes are the planted ones."""
    monkeypatch.setenv("PYTHONPATH", str(PLANTED))
    monkeypatch.setenv("PLANTED_CALLS", str(tmp_path / "calls.txt"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # planted steps need no more: a run that ends at once would only wait for torch
    monkeypatch.setattr("coda.runners.local.WARM", ("kfp.dsl.executor_main", "coda.settings", "coda.steps.context"))
    for name in [name for name in os.environ if name.startswith("PLANTED_") and name != "PLANTED_CALLS"]:
        monkeypatch.delenv(name)
    return Planted(tmp_path / "calls.txt", monkeypatch)


@pytest.fixture
def settings(moto_server, tmp_path):
    return moto_server.settings(tmp_path)
