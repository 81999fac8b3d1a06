"""FailureRecord: why a step failed, as it left it for whoever waits for the run."""

from pydantic import Field

from coda.contracts.base import Contract, Part
from coda.errors import CodaError, Problem


class FailureProblem(Part):
    """One thing that is wrong with an input; see `coda.errors.Problem`."""

    where: str
    found: str
    expected: str
    remedy: str

    @property
    def problem(self) -> Problem:
        """The same as the errors of this library carry it."""
        return Problem(self.where, self.found, self.expected, self.remedy)


class FailureRecord(Contract):
    """Why a step failed."""

    step: str
    error: str = Field(description="Class of the error.")
    exit_code: int = Field(ge=0, le=255, description="docs/errors.md says who must act on it.")
    message: str
    problems: tuple[FailureProblem, ...] = ()

    @classmethod
    def of(cls, step: str, error: CodaError) -> "FailureRecord":
        """Return the record of an error that a step raised."""
        problems = tuple(FailureProblem(**vars(problem)) for problem in error.problems)
        name, code = type(error).__name__, error.exit_code
        return cls(step=step, error=name, exit_code=code, message=error.message, problems=problems)

    def __str__(self) -> str:
        """Return the reason as a person should read it."""
        lines = [f"Step '{self.step}' failed: {self.message}"]
        return "\n".join([*lines, *(f"  - {item.problem}" for item in self.problems)])
