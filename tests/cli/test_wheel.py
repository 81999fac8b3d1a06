"""The wheel as it is built: it has what users run, works without benchmarks and studies, and says where those are."""

import os
import subprocess
import sys
import zipfile

import pytest

from coda.cli.checkout import COMMANDS, ROOT, missing_commands

SOURCES = ("coda", "components", "pipelines", "params", "params.yaml", "pyproject.toml", "README.md", "LICENSE")
BESIDE = tuple(module.split(".")[0] for module in COMMANDS)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel; built from links to the sources, so that nothing is left beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "checkout").mkdir()
    for name in (*SOURCES, *BESIDE):
        (folder / "checkout" / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    done = subprocess.run(
        [*command, "-w", str(folder), "."], cwd=folder / "checkout", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel):
    """A folder with the wheel unpacked: what `pip install --no-deps --target` leaves."""
    folder = wheel.parent / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed, *words):
    """Run the installed program; the environment's own packages are there, the checkout is not."""
    program = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if '__editable__' not in getattr(f, '__module__', '')];"
        f"sys.path.insert(0, {str(installed)!r}); from coda.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *words], cwd=installed, capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def test_the_wheel_holds_what_users_run_and_no_benchmark_or_study(wheel):
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {"coda", "components", "pipelines"} <= names
    assert not names & {*BESIDE, "tests", "docs"}


@pytest.mark.parametrize("words", [("--help",), ("benchmark", "table2", "--help")])
def test_help_needs_no_checkout(installed, words):
    done = run(installed, *words)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.parametrize("name", [names[0] for names in COMMANDS.values()])
def test_what_only_a_checkout_has_says_so(installed, name):
    done = run(installed, "benchmark", name)
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    assert f"coda benchmark {name}" in told
    assert str(installed) in told, "found"
    assert "make setup" in told, "remedy"


def test_a_checkout_has_every_command():
    from coda.cli.benchmark import app

    assert missing_commands(ROOT) == []
    registered = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert registered == {"table2", "table3", "real", *(name for names in COMMANDS.values() for name in names)}
