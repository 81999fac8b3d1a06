"""What CI says about vulnerable dependencies and planted keys; and that silence is never taken for a pass."""

import importlib.util
import json
import subprocess
import sys

import pytest

SOUND = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found"}


@pytest.fixture(scope="module")
def audit(root):
    spec = importlib.util.spec_from_file_location("audit", root / ".ci" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("dependencies", "code", "told"),
    [
        ([SOUND], 0, "1 packages checked"),
        ([SOUND, BAD], 1, "VULNERABLE: b 2: PYSEC-1, fixed in 2.1"),
        ([SOUND, SKIPPED], 2, "NOT CHECKED: 1 of 2 packages (c)"),
        ([SKIPPED] * 9, 2, "NOT CHECKED: 9 of 9"),
        ([BAD, SKIPPED], 1, "NOT CHECKED: 1 of 2"),
    ],
)
def test_vulnerable_and_not_checked_are_told_apart(audit, dependencies, code, told):
    found, lines = audit.judge({"dependencies": dependencies})
    assert found == code
    assert told in "\n".join(lines)


@pytest.mark.parametrize(
    ("output", "strict", "lenient"),
    [
        (json.dumps({"dependencies": [SOUND]}), 0, 0),
        (json.dumps({"dependencies": [BAD]}), 1, 1),
        (json.dumps({"dependencies": [SKIPPED]}), 2, 0),
        (json.dumps({"dependencies": []}), 2, 0),
        ("ERROR: could not connect", 2, 0),
    ],
)
def test_the_command_ends_as_it_says(audit, output, strict, lenient, tmp_path, monkeypatch, capsys):
    done = subprocess.CompletedProcess([], 0, stdout=output, stderr="its own words")
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: done)
    for options, code in (([], strict), (["--away-is-no-failure"], lenient)):
        monkeypatch.setattr(sys, "argv", ["audit", *options, str(tmp_path / "constraints.txt")])
        assert audit.main() == code
        said = capsys.readouterr().out
        assert ("NOT CHECKED" in said) == (strict == 2)


def scan(root, *files):
    command = [sys.executable, "-m", "detect_secrets.pre_commit_hook", "--baseline", ".secrets.baseline", "--no-verify"]
    return subprocess.run([*command, *map(str, files)], cwd=root, capture_output=True, text=True, check=False)


def test_planted_keys_are_found(root, tmp_path):
    # put together here, so that this file itself holds none
    keys = {
        "aws.py": f'key = "{"AKIA" + "Q3EGRVNZXXYZTUVW"}"\n',
        "private.txt": f"-----BEGIN {'RSA PRIVATE'} KEY-----\nMIIE\n",
        "mlflow.env": f"uri=postgresql://mlflow:{'wX9d' + 'kTq2Zp'}@db/mlflow\n",
    }
    for name, text in keys.items():
        (tmp_path / name).write_text(text)
    done = scan(root, *(tmp_path / name for name in keys))
    assert done.returncode == 1
    assert not [name for name in keys if name not in done.stdout]
    (tmp_path / "plain.py").write_text("x = 1\n")
    assert scan(root, tmp_path / "plain.py").returncode == 0
