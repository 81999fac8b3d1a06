"""Errors by who must act, each carrying every problem found in one input.

A message says what was found, where, what was expected and what to do (`docs/errors.md`). A gate that keeps the
incumbent and a batch that is refused by quality control are results, not errors.
"""

import errno
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input.

    Attributes:
        where: Place of the problem, for example ``plate lab_b_1, well C04, site 2`` or a dotted parameter path.
        found: What was there, with its value.
        expected: What should have been there.
        remedy: What the reader can do about it.
    """

    where: str
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        """Return the problem as one line of plain text."""
        return f"{self.where}: found {self.found}; expected {self.expected}. {self.remedy}"


class CodaError(Exception):
    """Root of every error this library raises on purpose.

    Attributes:
        exit_code: What the command line returns; documented in `docs/errors.md`.
        problems: All problems of the input, in the order they were found.
    """

    exit_code = 1

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        """Keep the message and the problems; the text of the error is both together."""
        self.message = message
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(message)

    def __str__(self) -> str:
        """Return the message followed by one line for each problem."""
        return "\n".join([self.message, *(f"  - {problem}" for problem in self.problems)])


class ConfigError(CodaError):
    """The operator must change a parameter, a setting or a command."""

    exit_code = 2


class ServiceRefusedError(ConfigError):
    """A service lets nobody in, or something else answers in its place: nothing that was asked of it was judged."""


class ContractError(CodaError):
    """The producer of the data must deliver something else."""

    exit_code = 3


class IntegrityError(CodaError):
    """Bytes are not the ones that were recorded: somebody responsible for security must investigate."""

    exit_code = 4


class TransientError(CodaError):
    """A service was away or overloaded: the same call may succeed later. The only error worth a retry."""

    exit_code = 75


class StoppedError(TransientError):
    """The process was stopped, or lost the one that ran it: a node was taken back, and what was run is sound."""


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Error numbers of a disk that is full, or may not be written."""

OF_THE_DATA = frozenset(
    {
        errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG,
        errno.EINVAL, errno.EILSEQ, errno.EFBIG, errno.EOVERFLOW, errno.ERANGE, errno.EDOM,
    }
)  # fmt: skip
"""Error numbers that say something about a file's name, kind or content; all others are about the machine."""


def machine_error(error: BaseException) -> CodaError | None:
    """Return what an error means for whoever runs the machine, or None where it is no error of the machine.

    A pipe whose reader is gone, a disk that fails or is full, a table of open files that is full, memory that cannot be
    had: none of them says anything about the bytes that were being read. Readers that take any error for damage hide
    them, so the errors behind `error` are looked through, too.

    Returns:
        A `ConfigError` for a disk without room and for a file that may not be read, which last until somebody acts; a
        `TransientError` for the rest.
    """
    for link in _chain(error):
        if isinstance(link, BrokenPipeError):
            return StoppedError("The process that ran this step is gone.")
        if isinstance(link, MemoryError):
            return _machine(link, "There is not enough memory.", TransientError)
        if not isinstance(link, OSError) or link.errno is None or link.errno in OF_THE_DATA:
            continue
        if link.errno in NO_ROOM:
            return _machine(link, "There is no room on the disk, or it may not be written.", ConfigError)
        if link.errno in {errno.EACCES, errno.EPERM}:
            return _machine(link, "The operating system forbids it.", ConfigError)
        return _machine(link, "The machine failed, not the data.", TransientError)
    return None


def _machine(error: BaseException, message: str, kind: type[CodaError]) -> CodaError:
    remedy = "Free space there, or give this user the right; then repeat the step."
    if kind is TransientError:
        remedy = "Nothing is to be done about the data; the step can be repeated, on another machine if it lasts."
    where = str(getattr(error, "filename", None) or "this machine")
    found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return kind(message, [Problem(where, found, "a machine that does what it is asked", remedy)])


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those it was raised from, the newest first, each once."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def raise_if_any(error: type[CodaError], message: str, problems: Sequence[Problem]) -> None:
    """Raise `error` with all problems together, or return when there are none."""
    if problems:
        raise error(message, problems)
