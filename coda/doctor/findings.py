"""One thing that does not agree, and what would put it right."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from coda.errors import Problem

Check = Literal[
    "record", "message", "ledger", "unrecorded_end", "expired_claim", "decision", "release", "model", "orphan_version",
    "alias", "data", "predictions", "report", "run_folder", "multipart_upload", "temporary_folder",
]  # fmt: skip
"""What was compared; docs/doctor.md has one row for each."""


@dataclass(frozen=True)
class Repair:
    """What the doctor may do by itself, since repeating it or being wrong about it loses nothing.

    Attributes:
        says: What is done, in words that follow "Repaired:".
        act: Does it; returns whether anything was changed (False: somebody else was faster).
    """

    says: str
    act: Callable[[], bool]


@dataclass(frozen=True)
class Finding:
    """Two places that do not say the same, or something that belongs to nothing.

    Attributes:
        check: What was compared.
        problem: Where, what was found and expected, and the remedy with its command.
        repair: What `coda doctor --repair` does about it; none where a person must decide.
        bytes_differ: Something is not what was recorded: a matter for whoever is responsible for security.
    """

    check: Check
    problem: Problem
    repair: Repair | None = None
    bytes_differ: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the finding as JSON values."""
        return {
            "check": self.check,
            "where": self.problem.where,
            "found": self.problem.found,
            "expected": self.problem.expected,
            "remedy": self.problem.remedy,
            "repairable": self.repair is not None,
        }
