"""The folder of one run on this machine, and the environment its steps inherit."""

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import coda
from coda.errors import ConfigError, Problem, TransientError

LOCK = "lock"


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps its things: ``<work>/<run_id>/``.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def outputs(self) -> Path:
        """Root of the steps' outputs."""
        return self.path / "outputs"

    @property
    def remembered(self) -> Path:
        """What finished steps put out: how a run that was broken off resumes."""
        return self.path / "finished-steps"

    @property
    def temporary(self) -> Path:
        """Temporary files of the steps; forgotten with the run."""
        return self.path / "tmp"

    @property
    def scratch(self) -> Path:
        """A folder that KFP removes after every run; never anything else."""
        return self.path / "scratch"

    @property
    def log(self) -> Path:
        """Everything the steps printed, of all attempts."""
        return self.path / "log.txt"


@contextmanager
def opened(work: Path, run_id: str) -> Iterator[RunFolder]:
    """Make the folder of a run and hold its lock: one process a run.

    Raises:
        TransientError: Another process of this machine runs it right now.
        ConfigError: The folder cannot be made.
    """
    folder = RunFolder((work / run_id).resolve())
    try:
        for part in (folder.outputs, folder.remembered, folder.temporary, folder.scratch):
            part.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        problem = Problem(str(folder.path), str(error), "a folder that can be written", "Choose another --work folder.")
        raise ConfigError("The run has no folder to work in.", [problem]) from error
    try:
        if not _locked(handle):
            problem = Problem(run_id, "a live process that runs it", "none", "Wait for it, or stop it.")
            raise TransientError(f"{run_id} is running on this machine already.", [problem])
        yield folder
    finally:
        # the kernel lets go of the lock with the handle, however the process ends
        os.close(handle)


def is_running(work: Path, run_id: str) -> bool:
    """Return whether a process of this machine holds the lock of a run."""
    path = work / run_id / LOCK
    if not path.exists():
        return False
    handle = os.open(path, os.O_RDWR)
    try:
        return not _locked(handle)
    finally:
        os.close(handle)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, and so of every step it starts, and put the old ones back."""
    before = {name: os.environ.get(name) for name in values}
    before_folder = tempfile.tempdir
    os.environ.update(values)
    tempfile.tempdir = None  # Python remembers TMPDIR from its first use
    try:
        yield
    finally:
        tempfile.tempdir = before_folder
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def python_path() -> str:
    """Return PYTHONPATH with the folder that `coda` was imported from in front: a step runs the same code."""
    own = str(Path(coda.__file__).resolve().parent.parent)
    rest = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != own]
    return os.pathsep.join([own, *rest])


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
