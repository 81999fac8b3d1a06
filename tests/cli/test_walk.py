"""Every command, walked with what people really have: wrong paths, ports, services and environments.

Commands are found by asking the command line, so a new one is walked from its first day. Whatever is wrong: no
traceback, an exit code of docs/errors.md, and a message that says what to do.
"""

import importlib
import io
import os
import re
import shutil
import signal
import socket
import sys
import typing
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import typer
from strangers import PAGE, stranger

from coda import cli

SECONDS = 60
"""After which a command counts as one that began to work although it could not."""

WORKS = {"demo", "benchmark"}
"""Groups whose commands work for minutes once their paths can be used: walked outside of a checkout, too."""

VALUES = {
    "pipeline": "adaptation", "manifest_uri": "s3://landing/lab_b/b1/manifest.json", "batch": "lab_b/b1",
    "name": "lab_b/b1", "kind": "corrupt_tiff", "instrument": "scope", "release": "r1", "prefix": "/nowhere",
    "pixel_size": "0.5", "place": "/nowhere",
}  # fmt: skip
"""What stands for a text that must be given; 'lab_b' for all others."""

SMALLEST = {"benchmark drift": ["--seeds", "1", "--steady", "20", "--changed", "2"]}
"""Commands that need nothing and work for minutes -> options with which they work for seconds."""

CODES = {0, 1, 2, 3, 4, 75}
REMEDY = re.compile(r"^  - .+: found .+; expected .+\. \S.+", re.MULTILINE | re.DOTALL)


def leaves(command: typing.Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], typing.Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield path, command


def every_command() -> dict[str, typing.Any]:
    found = {}
    for name in cli.COMMANDS:
        app = importlib.import_module(f"coda.cli.{name}").app
        found |= {" ".join(path): command for path, command in leaves(typer.main.get_command(app), (name,))}
    return found


COMMANDS = every_command()


def is_path(parameter: typing.Any) -> bool:
    annotation = parameter.type_descriptor.annotation
    return Path in {annotation, *typing.get_args(annotation)}


def given(parameter: typing.Any, value: str) -> list[str]:
    return [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]


def line(name: str, wrong: dict[str, str], good: Path) -> list[str]:
    """Return the words of a command: `wrong` values for some parameters, plausible ones for all that must be given."""
    options, arguments = list(SMALLEST.get(name, [])), []
    for parameter in COMMANDS[name].params:
        if parameter.name in wrong:
            value = wrong[parameter.name]
        elif not parameter.required:
            continue
        elif is_path(parameter):
            value = str(good / parameter.name)
        else:
            value = VALUES.get(parameter.name, "lab_b")
        words = given(parameter, value)
        (arguments if parameter.param_type_name == "argument" else options).extend(words)
    return [*name.split(), *options, "--", *arguments]


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """Run `coda WORDS` in this process, as its program does."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"{' '.join(words)} began to work")

    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "argv", ["coda", *words])
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return code, out.getvalue(), err.getvalue()


def check(words: list[str], monkeypatch: pytest.MonkeyPatch, *, may_succeed: bool = True) -> None:
    try:
        code, _, err = run(words, monkeypatch)
    except Exception as error:  # noqa: BLE001  exactly what must not come out
        pytest.fail(f"coda {' '.join(words)}: a traceback: {type(error).__name__}: {error}")
    told = f"coda {' '.join(words)} -> {code}\n{err}"
    assert code in CODES, told
    assert "Traceback" not in err, told
    if code == 0:
        assert may_succeed, told
    else:
        assert REMEDY.search(err) or "Usage:" in err, told


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch, root) -> Path:
    """A folder with the parameter files, an environment without services, and no waiting between tries."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "CODA_", "MLFLOW_", "DVC_"))]:
        monkeypatch.delenv(name)
    checkout = tmp_path / "checkout"
    (checkout / "params").mkdir(parents=True)
    shutil.copy(root / "params.yaml", checkout)
    shutil.copy(root / "params" / "demo.yaml", checkout / "params")
    monkeypatch.chdir(checkout)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("webbrowser.open", lambda address: True)
    return checkout


def services(monkeypatch: pytest.MonkeyPatch, address: str, folder: Path) -> None:
    """Point every setting at one address."""
    values = {
        "CODA_LANDING": "s3://landing", "CODA_PLATFORM": "s3://platform", "AWS_ENDPOINT_URL_S3": address,
        "MLFLOW_TRACKING_URI": address, "CODA_DATA_REGISTRY": f"{address}/registry.git", "CODA_DATA_REMOTE": "s3://p/dvc",
        "CODA_CHECKPOINTS": str(folder), "CODA_QUEUE_URL": f"{address}/1/q", "CODA_KFP_ENDPOINT": address,
        "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_MAX_ATTEMPTS": "1",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wrong_paths(folder: Path) -> dict[str, str]:
    file, inner = folder / "a file", folder / "a folder"
    file.write_bytes(b"\xff\xfe\x00 no text, no picture\n")
    inner.mkdir()
    return {
        "a file": str(file), "below a file": str(file / "below"), "nowhere to write": "/proc/nope",
        "a folder": str(inner), "absent": str(folder / "absent"),
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name, it in COMMANDS.items() if any(map(is_path, it.params))])
def test_paths_that_are_wrong(name, tmp_path, monkeypatch, somewhere):
    services(monkeypatch, f"http://127.0.0.1:{closed_port()}", tmp_path)
    group = name.split()[0]
    for parameter in filter(is_path, COMMANDS[name].params):
        folder = tmp_path / f"wrong {parameter.name}"
        folder.mkdir()
        for which, path in wrong_paths(folder).items():
            # what could be used would be worked on: then there are no parameters
            usable = which in {"absent", "a folder"} and group in WORKS
            monkeypatch.chdir(tmp_path if usable or group == "benchmark" else somewhere)
            if group == "simulate" and usable_for_output(which, parameter):
                continue
            check(_ending(name, {parameter.name: path}, tmp_path), monkeypatch)


def usable_for_output(which: str, parameter: typing.Any) -> bool:
    return which in {"absent", "a folder"} and parameter.name == "out"


def _ending(name: str, wrong: dict[str, str], good: Path) -> list[str]:
    """Return the words of a command that ends: a server gets a port that is taken by nobody's right."""
    ports = {it.name: "1" for it in COMMANDS[name].params if it.name == "port"}
    return line(name, {"host": "203.0.113.1", **ports, **wrong} if ports else wrong, good)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("environment", ["empty", "odd", "closed", "a page", "a stranger's object"])
def test_services_that_are_absent_foreign_or_unset(name, environment, tmp_path, monkeypatch, somewhere):
    if name.split()[0] in WORKS:
        monkeypatch.chdir(tmp_path)
    # what needs no service would begin to work, were there a place to write
    good = Path("/proc/nope") if name.startswith("simulate") else tmp_path
    words = _ending(name, {}, good)
    if environment == "empty":
        check(words, monkeypatch)
    elif environment == "odd":
        services(monkeypatch, "no address\n", tmp_path)
        monkeypatch.setenv("HOME", "/nowhere")
        check(words, monkeypatch)
    elif environment == "closed":
        services(monkeypatch, f"http://127.0.0.1:{closed_port()}", tmp_path)
        check(words, monkeypatch)
    else:
        kind, body = ("text/html", PAGE) if environment == "a page" else ("application/json", "{}")
        with stranger(200, kind, body) as server:
            services(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path)
            check(words, monkeypatch)


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, it.name) for name, command in COMMANDS.items() for it in command.params if it.name.endswith("port")],
)
def test_ports_and_addresses_that_are_impossible(name, option, tmp_path, monkeypatch):
    services(monkeypatch, f"http://127.0.0.1:{closed_port()}", tmp_path)
    monkeypatch.setenv("CODA_WEBHOOK_TOKEN", "a-token-of-sixteen-letters-or-more-0123456789")
    (tmp_path / "folder").mkdir()
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    host = option.replace("port", "host")
    others = {"folder": str(tmp_path / "folder"), **({"webhook": "--webhook"} if option == "webhook_port" else {})}
    with taken:
        for wrong in (
            {option: str(taken.getsockname()[1])}, {option: "99999"}, {option: "-1"}, {option: "http"},
            {option: "0", host: "no.such.host.invalid"}, {option: "0", host: "203.0.113.1"}, {option: "0", host: "::g"},
        ):  # fmt: skip
            check(line_with_flags(name, {**others, **wrong}, tmp_path), monkeypatch, may_succeed=False)


def line_with_flags(name: str, wrong: dict[str, str], good: Path) -> list[str]:
    flags = [value for value in wrong.values() if value.startswith("--")]
    words = line(name, {key: value for key, value in wrong.items() if not value.startswith("--")}, good)
    return [*words[: len(name.split())], *flags, *words[len(name.split()) :]]
