"""A second process on one state folder is refused; one that was killed leaves nothing behind."""

import os
import signal
import subprocess
import sys

import pytest

from coda.errors import ConfigError
from coda.local.one_writer import one_writer
from coda.local.services import EmbeddedServices

HOLD = """
import sys, time
from pathlib import Path
from coda.local.one_writer import one_writer
with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_second_process_is_refused_and_told_which_one_to_stop(tmp_path, holder):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="in use") as refused, EmbeddedServices(tmp_path):
        pass
    assert str(holder.pid) in str(refused.value)
    assert sorted(tmp_path.iterdir()) == before, "something was started or written"


def test_process_that_was_killed_leaves_no_lock_behind(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with one_writer(tmp_path):
        pass
    with one_writer(tmp_path):
        pass


def test_folder_that_cannot_be_made_is_told_in_words(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="no folder"), one_writer(tmp_path / "file" / "state"):
        pass
