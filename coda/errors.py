"""Errors by who must act, each carrying every problem found in one input.

A message says what was found, where, what was expected and what to do (`docs/errors.md`). A gate that keeps the
incumbent and a batch that is refused by quality control are results, not errors.
"""

from collections.abc import Iterable, Sequence
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
    """Bytes are not the ones that were recorded: somebody responsible for security must look."""

    exit_code = 4


class TransientError(CodaError):
    """A service was away or overloaded: the same call may succeed later. The only error worth a retry."""

    exit_code = 75


def raise_if_any(error: type[CodaError], message: str, problems: Sequence[Problem]) -> None:
    """Raise `error` with all problems together, or return when there are none."""
    if problems:
        raise error(message, problems)
