"""git and DVC that end badly: who must act."""

import sys

import pytest

from coda.errors import CodaError, TransientError
from coda.storage import programs


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a git on the PATH that runs a shell script instead."""

    def put(script):
        path = tmp_path / "bin" / "git"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent), prepend=":")
        return tmp_path

    return put


def test_a_program_that_was_killed_is_started_again_later(program):
    # as the kernel does to whoever holds the most memory
    with pytest.raises(TransientError, match="git push was killed by signal 9") as caught:
        programs.git(program("kill -9 $$"), "push")
    assert "memory" in str(caught.value)


def test_dvc_that_was_killed_is_started_again_later(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -9 $$\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(TransientError, match="dvc pull was killed by signal 9"):
        programs.dvc(tmp_path, "pull", "data/s/b.dvc")


def test_an_upload_that_the_store_has_forgotten_is_begun_again_later(tmp_path, monkeypatch):
    # as DVC says it when the answer to the last request of an upload came too late, and the request was repeated
    words = (
        "An error occurred (NoSuchUpload) when calling the AbortMultipartUpload operation: The specified upload does"
    )
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho 'ERROR: failed to transfer: {words} not exist' >&2; exit 1\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(TransientError, match="dvc push failed") as caught:
        programs.dvc(tmp_path, "push", "data/s/b.dvc")
    assert "NoSuchUpload" in str(caught.value)


def test_a_refusal_in_the_programs_own_words_is_for_a_person(program):
    with pytest.raises(CodaError, match="git push failed") as caught:
        programs.git(program("echo 'fatal: something new' >&2; exit 3"), "push")
    assert not isinstance(caught.value, TransientError)
    assert "something new" in str(caught.value)
