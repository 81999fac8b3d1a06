"""The parameters that come with the program, for people who work outside of its source."""

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coda.cli.params import app
from coda.config import load_params
from coda.config.load import shipped_params
from coda.errors import ConfigError


def test_outside_of_the_clone_the_missing_file_names_the_command_that_writes_it(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="coda params init"):
        load_params(Path("params.yaml"))
    for _ in range(2):  # the same again changes nothing
        result = CliRunner().invoke(app, ["init"])
        assert result.exit_code == 0, result.output
    written = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    expected = ["params.yaml", *(f"params/{path.name}" for path in (root / "params").glob("*.yaml"))]
    assert written == {name: (root / name).read_bytes() for name in expected}
    assert load_params(Path("params.yaml"), [Path("params/demo.yaml")]) == load_params(
        root / "params.yaml", [root / "params/demo.yaml"]
    )


def test_a_file_that_differs_is_kept_and_nothing_is_written(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: 3\n")
    result = CliRunner().invoke(app, ["init", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
    assert (tmp_path / "params.yaml").read_text() == "seed: 3\n"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("extractor.arch=vit_nothing", "vit_nothing"),
        ("extractor.overrides={patch_size: 8, depht: 3}", "depht"),
        ("extractor.arch=resnet50", "resnet50"),
    ],
)
def test_a_network_that_cannot_be_built_is_found_by_the_check(root, change, named):
    params = ["--params", str(root / "params.yaml"), "--overlay", str(root / "params/demo.yaml")]
    assert CliRunner().invoke(app, ["check", *params]).exit_code == 0
    result = CliRunner().invoke(app, ["check", *params, "--set", change])
    assert isinstance(result.exception, ConfigError)
    assert named in str(result.exception)


def test_a_wheel_carries_them(root):
    told = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    carried = {
        f"{place}/{path.name}".removeprefix("share/coda/")
        for place, globs in told.items()
        for it in globs
        for path in root.glob(it)
    }
    assert carried == set(shipped_params())
