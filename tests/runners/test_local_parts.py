"""Parts of the local runner: its lock, its environment, what it makes of KFP's output."""

import io
import os
import signal
import subprocess
import sys
import tempfile

import pytest

from coda.contracts import FailureRecord
from coda.errors import ConfigError, TransientError
from coda.runners.capture import Capture
from coda.runners.failure_reason import BY_CODE, as_error, reason
from coda.runners.local import local_paths
from coda.runners.starting import run_step
from coda.runners.workdir import environment, is_running, opened, python_path
from coda.warm.asking import worker


def test_a_run_has_one_process_and_its_lock_dies_with_it(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from coda.runners.workdir import opened\n"
        "with opened(Path(sys.argv[1]), 'r'): print('in', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    assert is_running(tmp_path, "r")
    with pytest.raises(TransientError, match="running on this machine"), opened(tmp_path, "r"):
        pass
    with opened(tmp_path, "other"):
        assert is_running(tmp_path, "other")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not is_running(tmp_path, "r")
    assert not is_running(tmp_path, "never")


def test_environment_is_put_back_also_after_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.delenv("NEW", raising=False)
    folder = tempfile.gettempdir()

    def fail_inside():
        with environment({"KEPT": "2", "NEW": "3", "TMPDIR": str(tmp_path)}):
            assert (os.environ["KEPT"], os.environ["NEW"]) == ("2", "3")
            assert tempfile.gettempdir() == str(tmp_path)
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail_inside()
    assert os.environ["KEPT"] == "1"
    assert "NEW" not in os.environ
    assert tempfile.gettempdir() == folder


def test_words_of_kfp_become_plain_lines():
    log, said = io.StringIO(), []
    capture = Capture(log, said.append)
    for piece in (
        "12:00:00.000 - INFO - Executing task \x1b[96m'in", "gest'\x1b[0m\nwords of the step\n",
        "12:00:01.000 - INFO - Task \x1b[96m'ingest'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m\n",
        "12:00:01.000 - INFO - Task version cache hit (key=abc); skipping execution.\n", "-----\n",
        "12:00:01.000 - INFO - Executing task 'report-2'\n",
        "12:00:01.000 - ERROR - Task 'report-2' finished with status FAILURE\nlast",
    ):  # fmt: skip
        capture.write(piece)
    capture.close_line()
    assert said[0] == "Putting the batch together ..."
    assert said[1].startswith("Putting the batch together: done in ")
    assert said[2] == "Versioning the data: done before."
    assert said[4].startswith("Writing the report failed after ")
    assert capture.failed == ["report"]
    assert list(capture.tail)[-1].endswith("FAILURE"), "what comes after belongs to other steps"
    assert "\x1b" not in log.getvalue()
    assert "words of the step\n" in log.getvalue()


def test_recorded_failures_come_back_as_the_errors_they_were():
    for code, kind in BY_CODE.items():
        error = as_error(FailureRecord(step="gate", error=kind.__name__, exit_code=code, message="Why."))
        assert type(error) is kind
        assert error.exit_code == code
        assert "gate" in str(error)
    defect = FailureRecord(step="gate", error="ValueError", exit_code=1, message="Why.")
    assert as_error(defect, "log.txt").exit_code == 1


def test_folders_in_settings_are_found_and_nothing_else(tmp_path):
    (tmp_path / "registry" / "inner").mkdir(parents=True)
    (tmp_path / "db").mkdir()
    found = local_paths(
        {
            "A": f"sqlite:///{tmp_path}/db/mlflow.db", "B": str(tmp_path / "registry"), "C": "s3://bucket",
            "D": f"file://{tmp_path}/registry/inner", "E": "http://x", "F": "relative",
        }
    )  # fmt: skip
    assert found == [tmp_path / "db", tmp_path / "registry"]


def test_a_step_that_the_system_kills_is_told_with_the_memory_to_raise(tmp_path, moto_server, capsys):
    killer = "import os, signal, sys\nprint('allocating', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    command = ["sh", "-ec", "script", killer, "--executor_input", "{}", "--function_to_execute", "f"]
    with worker(("coda.errors",), tmp_path / "log.txt") as asker:
        assert run_step(asker, command, {"PYTHONPATH": python_path()}) == -9
    lines = capsys.readouterr().out.splitlines()
    error = reason("r", moto_server.settings(tmp_path), failed=["train-head"], tail=filter(None, lines))
    assert isinstance(error, ConfigError), "the same run, at once, would end the same"
    assert "killed by signal 9" in str(error)
    assert "head.tokens_gib" in str(error)
