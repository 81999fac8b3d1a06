"""What a step leaves behind when the disk is full or the object store is away."""

import errno

import pytest
from servers import moto_server

from coda.errors import TransientError
from coda.steps.context import is_full_disk, read_failure, running

__all__ = ["moto_server"]


@pytest.fixture
def settings(moto_server, tmp_path):
    return moto_server.settings(tmp_path)


FULL = {
    "the operating system": OSError(errno.ENOSPC, "No space left on device", "/work/outputs/x.npy"),
    "a quota": OSError(errno.EDQUOT, "Disk quota exceeded", "/work/outputs/x.npy"),
    "a library's own error": RuntimeError("Error while serializing: No space left on device (os error 28)"),
    "SQLite": RuntimeError("(sqlite3.OperationalError) database or disk is full"),
}


@pytest.mark.parametrize("kind", FULL)
def test_a_full_disk_is_for_the_operator_whoever_says_it(settings, capsys, kind):
    with pytest.raises(SystemExit) as ended, running("adapt", "r1", settings):
        raise FULL[kind]
    assert ended.value.code == 2
    failure = read_failure("r1", settings)
    assert (failure.step, failure.error) == ("adapt", "ConfigError")
    words = str(failure)
    assert "There is no room on disk for what adapt writes." in words
    assert "Free space there, or give the run a work folder on another disk" in words
    assert words in capsys.readouterr().err


def test_other_errors_of_the_operating_system_stay_defects(settings):
    with pytest.raises(SystemExit) as ended, running("adapt", "r1", settings):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "x")
    assert ended.value.code == 1
    assert read_failure("r1", settings).exit_code == 1
    assert not is_full_disk(ValueError("x"))


def test_a_step_whose_reader_was_killed_is_worth_another_try(settings, monkeypatch):
    """Found by the soak: a run that was killed while its step printed failed for good."""

    class Closed:
        def write(self, text):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("sys.stderr", Closed())
    with pytest.raises(SystemExit) as ended, running("adapt", "r1", settings):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert ended.value.code == TransientError.exit_code
    assert read_failure("r1", settings).message == "The process that ran this step is gone."


def test_a_store_that_goes_away_at_the_very_end_of_a_step_is_worth_another_try(settings, capsys):
    away = settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})
    with pytest.raises(SystemExit) as ended, running("adapt", "r1", away) as run:
        run.store.attempts = 1
    assert ended.value.code == TransientError.exit_code
    said = capsys.readouterr().err
    assert "The reason could not be stored in the platform bucket: Could not write" in said
    assert "Step 'adapt' failed: Could not write s3://" in said
