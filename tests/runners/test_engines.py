"""Engines are declared once: who runs a pipeline and who submits one ask the same list."""

import subprocess
from pathlib import Path

import pytest

from coda.cli.options import EngineChoice
from coda.errors import ConfigError
from coda.runners import run_pipeline
from coda.runners.engines import ENGINES
from coda.runners.submit import KubeflowSubmitter, LocalSubmitter
from coda.settings import Settings

SETTINGS = Settings(
    landing="s3://l",
    platform="s3://p",
    mlflow_uri="sqlite://",
    data_registry="/r",
    data_remote="s3://x",
    checkpoints="/c",
)
ROOT = Path(__file__).resolve().parents[2]


def test_commands_offer_every_engine_and_no_other() -> None:
    assert [choice.value for choice in EngineChoice] == list(ENGINES)


def test_a_trigger_submits_to_the_engine_that_a_command_runs(tmp_path: Path) -> None:
    settings = SETTINGS
    found = {name: engine.submitter(settings, tmp_path) for name, engine in ENGINES.items()}
    for name in ("local", "docker"):
        own = found[name]
        assert isinstance(own, LocalSubmitter)
        assert (own.runner, own.work) == (name, tmp_path)
    assert isinstance(found["kfp"], KubeflowSubmitter)


def test_an_engine_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    arguments = {"run_id": "r", "manifest_uri": "s3://landing/a/b/manifest.json", "params": "{}"}
    with pytest.raises(ConfigError) as caught:
        run_pipeline("adaptation", arguments, runner="slurm", settings=SETTINGS, work=tmp_path)
    assert "local (processes of this machine), docker (containers of this machine), kfp (" in str(caught.value)


def test_an_engine_takes_its_file_its_declaration_and_a_name_for_commands() -> None:
    """What docs/architecture.md says: nothing else of the library knows an engine."""
    command = ["git", "grep", "-lE", "run_docker|runners.docker", "--", "coda", "components", "pipelines"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert set(found) == {"coda/runners/docker.py", "coda/runners/engines.py"}
