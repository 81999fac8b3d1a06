"""What was injected and what became of it: the table that `make faults` prints, and its summary."""

import json
import os
import resource
from dataclasses import dataclass, field
from pathlib import Path

SUMMARY = Path("runs/faults/summary.json")


@dataclass
class Row:
    """One kind of fault.

    Attributes:
        fault: What was done.
        injected: How often.
        outcome: What became of it, in words.
    """

    fault: str
    injected: int
    outcome: str


@dataclass
class Tally:
    """The figures of one session.

    Attributes:
        seed: Seed of everything that was drawn.
        rows: One for each kind of fault.
        accepted: Batch versions that quality control accepted.
        released_once: Of these, those with exactly one release or decision.
        lost: Of these, those without.
        duplicated: Of these, those with more than one release.
        orphans: Model versions that belong to nothing.
        peak_kib: The most memory that a process of a run took.
    """

    seed: int
    rows: list[Row] = field(default_factory=list)
    accepted: int = 0
    released_once: int = 0
    lost: int = 0
    duplicated: int = 0
    orphans: int = 0
    peak_kib: int = 0

    def add(self, fault: str, injected: int, outcome: str) -> None:
        self.rows.append(Row(fault, injected, outcome))

    def table(self) -> str:
        """Return the table as Markdown."""
        lines = ["| fault | injected | outcome |", "|---|---|---|"]
        lines += [f"| {row.fault} | {row.injected} | {row.outcome} |" for row in self.rows]
        return "\n".join(lines)

    def summary(self) -> dict[str, object]:
        # the trigger and the doctor live in this process; a run has one of its own
        peak = max(self.peak_kib, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return {
            "seed": self.seed,
            "injected": sum(row.injected for row in self.rows),
            "kinds": {row.fault: row.injected for row in self.rows},
            "accepted": self.accepted,
            "released_once": self.released_once,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "orphans": self.orphans,
            "peak_rss_mib": round(peak / 1024, 1),
            "s3": "a real server" if os.environ.get("CODA_TEST_S3_ENDPOINT") else "moto",
        }

    def write(self, root: Path) -> Path:
        path = root / SUMMARY
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.summary(), indent=2) + "\n", encoding="utf-8")
        return path
