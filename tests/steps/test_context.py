"""What a step leaves behind when the disk is full or the object store is away."""

import errno
import signal

import pytest
from servers import moto_server

from coda.errors import ContractError, IntegrityError, TransientError
from coda.steps.context import is_full_disk, read_failure, running
from coda.steps.keeping import stopping_on_sigterm

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


MACHINE = {
    "a pipe without a reader": (BrokenPipeError(errno.EPIPE, "Broken pipe"), 75, "StoppedError"),
    "a disk that fails": (OSError(errno.EIO, "Input/output error", "/x/index.parquet"), 75, "TransientError"),
    "a call that was interrupted": (InterruptedError(errno.EINTR, "Interrupted"), 75, "TransientError"),
    "memory": (OSError(errno.ENOMEM, "Cannot allocate memory"), 75, "TransientError"),
    "memory of Python": (MemoryError(), 75, "TransientError"),
    "too many open files": (OSError(errno.EMFILE, "Too many open files"), 75, "TransientError"),
    "a stale handle": (OSError(errno.ESTALE, "Stale file handle"), 75, "TransientError"),
    "a full disk": (OSError(errno.ENOSPC, "No space left on device"), 2, "ConfigError"),
    "a file that may not be read": (PermissionError(errno.EACCES, "Permission denied"), 2, "ConfigError"),
}


@pytest.mark.parametrize("verdict", [IntegrityError, ContractError])
@pytest.mark.parametrize("kind", MACHINE)
def test_an_error_of_the_machine_is_never_a_verdict_on_data(settings, kind, verdict):
    error, code, name = MACHINE[kind]

    def read():
        try:
            raise error
        except (OSError, MemoryError) as inner:
            raise ValueError("unreadable") from inner

    def judged():
        try:
            read()
        except ValueError as outer:
            raise verdict("A table of a batch cannot be read.") from outer

    with pytest.raises(SystemExit) as ended, running("adapt", "r1", settings):
        judged()
    assert ended.value.code == code
    assert read_failure("r1", settings).error == name


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "gone"), OSError("damaged gzip"), ValueError("x")])
def test_damage_stays_damage(settings, error):
    with pytest.raises(SystemExit) as ended, running("adapt", "r1", settings):
        raise IntegrityError("A table of a batch cannot be read.") from error
    assert ended.value.code == 4


def test_signal_that_meets_a_dead_pipe_disturbs_nothing(monkeypatch):
    """Seen: the handler's BrokenPipeError was raised inside a reader, and taken for a damaged table."""

    def broken(_handle, _text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("coda.steps.keeping.os.write", broken)
    with stopping_on_sigterm() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert asked()
