"""The commands in manifests and compose file are commands the program has."""

import yaml
from typer.testing import CliRunner

from coda.cli.data import app as data
from coda.cli.trigger import app as trigger


def options_of(help_text):
    return {word.strip("│ ,") for word in help_text.replace("\n", " ").split() if word.startswith("--")}


def help_of(app, *verb):
    return CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output


def test_the_trigger_takes_the_options_it_is_given(root):
    known = options_of(help_of(trigger, "serve"))
    compose = yaml.safe_load((root / "docker" / "compose.yaml").read_text())["services"]["trigger"]["command"]
    deployment = next(iter(yaml.safe_load_all((root / "k8s" / "base" / "trigger.yaml").read_text())))
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    for command in (compose, args):
        assert command[:3] == ["coda", "trigger", "serve"]
        given = {str(word) for word in command if str(word).startswith("--")}
        assert given
        assert given <= known, given - known


def test_the_stack_is_prepared_by_a_command_that_exists(root):
    compose = yaml.safe_load((root / "docker" / "compose.yaml").read_text())["services"]["prepare"]["command"]
    assert compose == ["coda", "data", "init"]
    assert "data registry" in help_of(data, "init")
