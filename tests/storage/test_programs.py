"""git that ends badly: who must act."""

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


def test_a_refusal_in_the_programs_own_words_is_for_a_person(program):
    with pytest.raises(CodaError, match="git push failed") as caught:
        programs.git(program("echo 'fatal: something new' >&2; exit 3"), "push")
    assert not isinstance(caught.value, TransientError)
    assert "something new" in str(caught.value)
